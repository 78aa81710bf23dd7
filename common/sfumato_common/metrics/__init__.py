"""Fidelity and utility: pure functions of arrays."""
