"""How a one-shot release becomes sums over sites: phases, each one Gaussian mechanism on what all sites add up to.

A phase may rest on the sums of those before it; a patient moves it by its sensitivity at most, whatever they are. All
phases of a stage together cost one Gaussian release of the stage's noise multiplier.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.types import AnyArray, Arrays

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Phase:
    """One mechanism: parts by name with their shapes, as one vector in that order, its L2 sensitivity, its noise."""

    shapes: Mapping[str, tuple[int, ...]]
    sensitivity: float
    noise_multiplier: float

    @property
    def size(self) -> int:
        """Length of the vector."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def join(self, parts: Arrays) -> Float64:
        """The vector [size] of parts, float64."""
        assert set(parts) == set(self.shapes), "a phase sums the parts that it names"
        flat = [np.asarray(parts[name], np.float64).reshape(-1) for name in self.shapes]
        return np.concatenate(flat)

    def split(self, vector: Float64) -> dict[str, AnyArray]:
        """Inverse of `join`."""
        found: dict[str, AnyArray] = {}
        start = 0
        for name, shape in self.shapes.items():
            end = start + math.prod(shape)
            found[name] = vector[start:end].reshape(shape)
            start = end
        return found


@dataclass(frozen=True, kw_only=True)
class Summed:
    """What a kind of stage says of itself for sums over sites.

    `multipliers` are the phases' noise multipliers, for whoever counts the cost; `phases` says all of them. `read`
    gives the sums of all phases the form that one site's reply has, and `check` raises VerificationError for what so
    many patients and noise of that multiplier cannot have led to. `summand` names a site's part of a phase:
    `package.module:name`, of a job, the number of the phase, the sums before it and the noise multiplier of those.
    """

    multipliers: Callable[[PublicPlan], tuple[float, ...]]
    phases: Callable[[PublicPlan], tuple[Phase, ...]]
    read: Callable[[PublicPlan, Arrays], Arrays]
    check: Callable[[PublicPlan, float, float, Arrays], None]
    summand: str


def as_they_are(plan: PublicPlan, pooled: Arrays) -> Arrays:
    """For `read`: a stage of one phase, whose parts are those of a reply."""
    return pooled
