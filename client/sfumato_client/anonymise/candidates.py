"""A candidate set: synthetic images that one method made from one model, not yet judged by anyone."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sfumato_common.accounting.events import Mechanism, Unprotected, event_to_json
from sfumato_common.errors import ReleaseRefused
from sfumato_common.files import canonical_json
from sfumato_common.mechanisms.sealed import Parts
from sfumato_common.study.words import Fill, GuaranteeLevel, Method, has_epsilon
from sfumato_common.types import ByteImages


@dataclass(frozen=True, eq=False)
class CandidateSet:
    """`images` uint8 or uint16 [N, S, S(, 3)] with `labels` int64 [N]; `guarantee`: the one word to claim.

    `spends` are the mechanisms that ran on records for it, in order; none for what is post-processing, and behind a
    word that is not formal none, or that it is without privacy. `patients` is the least number of patients whose
    records one image was made from: 0 where no record was read, and the model alone stands behind the image; for
    `dp-k-average` the k places of a group, empty ones counted, because which are empty would tell how many patients
    there are. Images that fill places of a method on groups are a set of their own, whose method says so.
    """

    method: Method | Fill
    model: str
    guarantee: GuaranteeLevel
    images: ByteImages = field(repr=False)
    labels: npt.NDArray[np.int64] = field(repr=False)
    patients: int = 0
    spends: tuple[Mechanism, ...] = ()

    @property
    def name(self) -> str:
        """Which set of a release it is, for the steward: a plan asks a method for a model's images at most once."""
        return f"{self.method} ({self.model})"

    def parts(self) -> Parts:
        """Every pixel, label and claim: what a seal covers."""
        claims = [self.method, self.model, self.guarantee, self.patients, list(map(event_to_json, self.spends))]
        return {"claims": canonical_json(claims), "images": self.images, "labels": self.labels}

    def __post_init__(self) -> None:
        assert self.images.dtype in (np.uint8, np.uint16), "images are uint8 or uint16"
        assert self.images.ndim in (3, 4), "images are [N, S, S] or [N, S, S, 3]"
        assert self.labels.dtype == np.int64, "labels are int64"
        assert self.labels.shape == (len(self.images),), "one label an image"
        mechanisms = [event for event in self.spends if not isinstance(event, Unprotected)]
        if mechanisms and not has_epsilon(self.guarantee):
            raise ReleaseRefused("a mechanism stands behind formal sets only")
