"""The Mann-Whitney statistic (1947) and percentile intervals (Efron 1979): once, for figures of use and of attacks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.floating[Any]]


def mann_whitney(above: Numbers, below: Numbers) -> float:
    """Probability that one of `above` is larger than one of `below`, ties half; nan where a side is empty."""
    if not len(above) or not len(below):
        return float("nan")
    order = np.sort(below)
    behind = np.searchsorted(order, above, side="left") + np.searchsorted(order, above, side="right")
    return float(behind.sum() / (2.0 * len(above) * len(below)))


def percentile_interval(values: Iterable[float], level: float = 0.95) -> tuple[float, float]:
    """The middle `level` of `values`, those that are not finite left out; nan when all are."""
    finite = np.array([value for value in values if np.isfinite(value)])
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)
