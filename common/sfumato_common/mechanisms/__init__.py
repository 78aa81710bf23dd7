"""Randomised mechanisms: cryptographic noise, exact arithmetic on a grid, and the recorder of what ran."""
