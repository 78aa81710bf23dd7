"""Spends, accounting, mechanisms and noise: what is charged and what is drawn."""
