"""Privacy losses that take few values, exactly: randomised response and whatever has an epsilon without a delta.

A K-ary answer (Warner 1965) that is the truth with odds e^epsilon to 1 has loss epsilon where it is the patient's
value, -epsilon where it is the other one, and 0 elsewhere. Every mechanism with an epsilon and no delta is dominated by
the answer among two (Kairouz et al. 2015, theorem 2). No grid and no rounding: losses are whole multiples of epsilon.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sfumato_common.errors import LedgerError

_MOST = 1_000_000
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Atoms:
    """A loss ln(P/Q) under P: `losses` [A] and the probability of each, `weights` [A]."""

    losses: _Floats
    weights: _Floats


NOTHING = Atoms(np.zeros(1), np.ones(1))


def answer_atoms(categories: int, epsilon: float, times: int) -> Atoms:
    """The loss of `times` answers among `categories`, each at `epsilon`; the same for adding, removing, replacing."""
    own = math.exp(-math.log1p((categories - 1) * math.exp(-epsilon)))
    other = own * math.exp(-epsilon)
    single = np.array([other, max(1.0 - own - other, 0.0) if categories > 2 else 0.0, own])
    weights: _Floats = single
    for _ in range(times - 1):
        weights = np.convolve(weights, single).astype(np.float64)
    return Atoms(epsilon * np.arange(-times, times + 1, dtype=np.float64), weights)


def sum_atoms(parts: Iterable[Atoms]) -> Atoms:
    """The loss of independent mechanisms together. Raises LedgerError for more values than can be listed."""
    found = NOTHING
    for part in parts:
        if len(found.losses) * len(part.losses) > _MOST:
            raise LedgerError("these mechanisms answer more often than can be recomputed; check what is stated")
        losses = np.add.outer(found.losses, part.losses).ravel()
        found = Atoms(losses, np.outer(found.weights, part.weights).ravel())
    return found
