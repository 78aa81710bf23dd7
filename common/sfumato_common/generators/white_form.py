"""The form of what flows and diffusion learn: whitened images, of pixels or of a code's numbers as a small one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

# sides of small images are multiples of it: two levels of squeeze, or patches of 4
_MULTIPLE = 4


@dataclass(frozen=True)
class WhiteForm:
    """Images [N, channels, size, size] of which each channel's `kept` lowest cosines are a record's own numbers.

    The other cosines, if any, are standard normal, drawn anew for every record, and mean nothing.
    """

    channels: int
    size: int
    kept: int

    @classmethod
    def of_numbers(cls, channels: int, kept: int) -> WhiteForm:
        """The smallest plane that holds so many numbers a channel as its lowest cosines."""
        reach = 1
        while _inside(reach) < kept:
            reach += 1
        return cls(channels, -(-(reach + 1) // _MULTIPLE) * _MULTIPLE, kept)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, S, S)."""
        return self.channels, self.size, self.size

    @property
    def numbers(self) -> int:
        """D: a record's own."""
        return self.channels * self.kept

    @cached_property
    def places(self) -> npt.NDArray[np.int64]:
        """[D]: where its numbers stand among the flat cosines [C S S], channel after channel, least frequency first."""
        down, across = (index.ravel() for index in np.indices((self.size, self.size)))
        order = np.argsort(down**2 + across**2, kind="stable")[: self.kept]
        first = np.arange(self.channels)[:, None] * self.size**2
        return np.asarray((first + order).ravel(), dtype=np.int64)


def _inside(reach: int) -> int:
    """How many frequencies are at most `reach` half waves long, both ways together."""
    down, across = np.indices((reach + 1, reach + 1))
    return int((down**2 + across**2 <= reach**2).sum())
