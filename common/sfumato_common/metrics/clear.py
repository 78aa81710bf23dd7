"""When noisy histograms of scores carry a figure at all: known from public numbers, before anything is spent on them.

A class counts at a site when its noisy total is `CLEAR` of its standard deviations above `FEWEST` patients.
"""

from __future__ import annotations

import math

CLEAR, FEWEST = 5.0, 10.0


def least_total(deviation: float, histograms: int, bins: int) -> float:
    """The least noisy total of `histograms` of `bins` cells, each noised by `deviation`, that shows its patients."""
    return FEWEST + CLEAR * deviation * math.sqrt(histograms * bins)


def least_patients(deviation: float, classes: int, bins: int) -> int:
    """The fewest patients of a site of whom both sides, the first class and all others, can show clearly."""
    return math.ceil(least_total(deviation, 1, bins) + least_total(deviation, classes - 1, bins))
