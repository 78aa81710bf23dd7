"""A lower bound on epsilon from one run with planted canaries (Steinke, Nasr and Jagielski 2023).

Canaries are patients who do not exist. Each is put into the cohort or not by a fair coin; from what the run released
the attacker guesses of some which it was. Under (epsilon, delta)-DP the number of right guesses is stochastically at
most what randomised response would give, up to delta: many right guesses prove that epsilon is not small. The guesses
say nothing of a real patient, but a model with canaries in it is not one to release: the run is for the audit alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

Floats = npt.NDArray[np.float64]
Coins = npt.NDArray[np.bool_]
_LARGEST = 40.0  # epsilon beyond which nothing is distinguished


@dataclass(frozen=True)
class OneRun:
    """Of `canaries` planted or not, `guesses` were made of which `right` were so: epsilon is at least `epsilon`."""

    canaries: int
    guesses: int
    right: int
    epsilon: float
    delta: float
    confidence: float


def one_run(scores: Floats, planted: Coins, guesses: int, delta: float, confidence: float = 0.95) -> OneRun:
    """The bound from scores [M] of canaries, the higher the likelier planted, and what the coins [M] were.

    `guesses` is chosen before the scores are seen: half of them say that the highest were planted, the other half that
    the lowest were not. Raises ValueError for more guesses than canaries, or none.
    """
    count, half = len(scores), guesses // 2
    if not 0 < 2 * half <= count or planted.shape != scores.shape:
        raise ValueError("guesses are an even number of canaries, each with a score and a coin")
    order = np.argsort(scores, kind="stable")
    right = int(planted[order[count - half :]].sum() + (~planted[order[:half]]).sum())
    return OneRun(count, 2 * half, right, least_epsilon(count, 2 * half, right, delta, confidence), delta, confidence)


def least_epsilon(canaries: int, guesses: int, right: int, delta: float, confidence: float) -> float:
    """The largest epsilon under which so many right guesses are less likely than 1 - confidence; 0 where none is."""
    if chance_of(canaries, guesses, right, 0.0, delta) >= 1.0 - confidence:
        return 0.0
    low, high = 0.0, _LARGEST
    for _ in range(60):
        middle = (low + high) / 2
        unlikely = chance_of(canaries, guesses, right, middle, delta) < 1.0 - confidence
        low, high = (middle, high) if unlikely else (low, middle)
    return low


def chance_of(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Bound on the probability of `right` right guesses or more under (epsilon, delta)-DP: their theorem 5.2."""
    odds = 1.0 / (1.0 + math.exp(-epsilon))
    above = float(binom.sf(right - 1, guesses, odds))
    # the worst place for the mass delta: raising the count by i costs i of it
    below = np.cumsum(binom.pmf(right - np.arange(1, right + 1), guesses, odds))
    steepest = float((below / np.arange(1, right + 1)).max(initial=0.0))
    return min(1.0, above + 2.0 * canaries * delta * steepest)
