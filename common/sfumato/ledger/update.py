"""A whole update clipped and noised (Gaussian mechanism): private whatever the program did with its patients.

What came and what goes back are arrays in one order. Their difference is clipped to an L2 norm C as one vector. With
one patient more or less the program may have made any other update, so that it moves by 2C at most: the noise has sd
noise_multiplier x 2C. Nothing rests on how the program trains; that is what it costs, as 2C is far more than one
patient's part of a good update.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sfumato.ledger import Tool
from sfumato_common.accounting.events import GaussianRelease
from sfumato_common.errors import EgressRefused
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.types import AnyArray

RESTS_ON = (
    "What comes to the program (models, settings) was made from this ledger's patients by nothing but what a ledger "
    "was charged for.",
    "Nothing of the program's work left this process but the noised update: no file, no connection of its own, no log.",
    "The identifiers that the run was given are those of all patients whose records the program read.",
)


def tool(name: str, *more: str) -> Tool:
    """An adapter's statement, with what it rests on beside the rest."""
    return Tool(name, "recorded", (*RESTS_ON, *more))


@dataclass(frozen=True)
class WholeUpdate:
    """The mechanism: `clipping_norm` C of an update, and noise of sd `noise_multiplier` x 2C on each number of it."""

    clipping_norm: float
    noise_multiplier: float

    @property
    def event(self) -> GaussianRelease:
        """What one update costs."""
        return GaussianRelease(self.noise_multiplier)

    def release(
        self, recorder: NoiseRecorder, before: Sequence[AnyArray], after: Sequence[AnyArray]
    ) -> list[npt.NDArray[np.float32]]:
        """`before` plus the noised update, in float32. An update that holds what is no number counts as none.

        Raises EgressRefused where the arrays that go back do not have the shapes of those that came.
        """
        if [one.shape for one in before] != [one.shape for one in after] or not before:
            raise EgressRefused("the arrays that go back do not have the shapes of those that came; nothing was sent")
        start = np.concatenate([np.asarray(one, np.float64).ravel() for one in before])
        moved = np.concatenate([np.asarray(one, np.float64).ravel() for one in after]) - start
        norm = float(np.linalg.norm(moved))
        scale = min(1.0, self.clipping_norm / norm) if np.isfinite(norm) and norm > 0 else 0.0
        inside = moved * scale if scale else np.zeros_like(moved)
        noised = start + recorder.gaussian(inside, 2.0 * self.clipping_norm, self.noise_multiplier)
        parts = np.split(noised, np.cumsum([one.size for one in before])[:-1])
        return [part.reshape(one.shape).astype(np.float32) for part, one in zip(parts, before, strict=True)]
