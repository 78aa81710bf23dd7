"""A model update as it travels: the change of the weights in bfloat16, one flat array of a public, padded length.

The change, not the weights, is rounded (after the noise, so it is post-processing): its relative error is at most 2^-8
whatever the weights' size. bfloat16 is the upper half of IEEE binary32, kept here as uint16 bit patterns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch

from sfumato_common.generators.replies import require
from sfumato_common.types import AnyArray, Arrays, ArraySpec

UPDATE = "update"
_PADDED_TO = 256


def update_spec(weights: Mapping[str, ArraySpec]) -> ArraySpec:
    """The one array that carries an update of `weights`; its length depends on the plan alone."""
    count = sum(spec.elements for spec in weights.values())
    return ArraySpec("bfloat16", (_padded_count(count),), filled=count)


def pack_update(before: Arrays, after: Arrays) -> AnyArray:
    """after - before for the names in `after`, in their sorted order -> uint16 [L], zeros at the end."""
    parts = [np.asarray(after[name], np.float32) - np.asarray(before[name], np.float32) for name in sorted(after)]
    flat = np.concatenate([part.ravel() for part in parts])
    padded = np.zeros(_padded_count(len(flat)), np.float32)
    padded[: len(flat)] = flat
    return torch.from_numpy(padded).to(torch.bfloat16).view(torch.uint16).numpy()


def unpack_update(packed: AnyArray, weights: Mapping[str, ArraySpec]) -> Changes:
    """Inverse of `pack_update`: float32 changes by name for the float32 arrays that `weights` describes."""
    return Changes(packed, weights)


class Changes(Mapping[str, AnyArray]):
    """The changes of an update by name, each made when it is looked up, so that only what is at hand takes memory."""

    def __init__(self, packed: AnyArray, weights: Mapping[str, ArraySpec]) -> None:
        """See `unpack_update`."""
        self._packed, self._places, start = packed, dict[str, tuple[int, ArraySpec]](), 0
        for name in sorted(weights):
            self._places[name] = start, weights[name]
            start += weights[name].elements

    def __getitem__(self, name: str) -> AnyArray:
        spec = self._places[name][1]
        return self.part(name, 0, spec.elements).reshape(spec.shape)

    def part(self, name: str, first: int, last: int) -> AnyArray:
        """Elements from `first` to before `last` of the change of `name`, [last - first]."""
        start = self._places[name][0]
        return _floats(self._packed[start + first : start + last])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def check_update(arrays: Arrays, furthest: float) -> None:
    """Raise VerificationError where an update changes a weight by more than `furthest`.

    No arithmetic needs an allowance: steps of Adam never add up to their bound, since the first ones are shorter.
    """
    require(float(np.abs(_floats(arrays[UPDATE])).max()) <= furthest, "an update")


def _floats(packed: AnyArray) -> AnyArray:
    return (packed.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _padded_count(count: int) -> int:
    return -(-count // _PADDED_TO) * _PADDED_TO
