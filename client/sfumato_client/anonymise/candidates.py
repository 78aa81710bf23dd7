"""A candidate set: synthetic images that one method made from one model, not yet judged by anyone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from sfumato_common.config.stages import ModelKind
from sfumato_common.types import ByteImages


@dataclass(frozen=True, eq=False)
class CandidateSet:
    """`images` uint8 or uint16 [N, S, S(, 3)] with `labels` int64 [N]; `guarantee`: the one word to claim."""

    method: str
    model: ModelKind
    guarantee: Literal["formal", "heuristic"]
    images: ByteImages = field(repr=False)
    labels: npt.NDArray[np.int64] = field(repr=False)

    def __post_init__(self) -> None:
        assert self.images.dtype in (np.uint8, np.uint16), "images are uint8 or uint16"
        assert self.images.ndim in (3, 4), "images are [N, S, S] or [N, S, S, 3]"
        assert self.labels.dtype == np.int64, "labels are int64"
        assert self.labels.shape == (len(self.images),), "one label an image"
