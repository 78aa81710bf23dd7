"""One fictional person with pictures: the same record for every modality."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sfumato_common.phantom.anatomy import Anatomy
from sfumato_common.phantom.retina import Retina


@dataclass(frozen=True)
class PhantomPatient:
    """One fictional person. Images are float32 in 0..1: [H, W] with dense structures bright, or [H, W, 3] in colour.

    `views` names each image's ViewPosition (PA, LL) or its eye (R, L).
    """

    patient_id: str
    name: str
    anatomy: Anatomy | Retina
    images: tuple[npt.NDArray[np.float32], ...]
    grades: tuple[int, ...]
    views: tuple[str, ...]

    @property
    def labels(self) -> tuple[int, ...]:
        """0 normal, 1 diseased (any grade above 0), one an image."""
        return tuple(int(grade > 0) for grade in self.grades)


def person_seed(seed: int, site: str, number: int) -> np.random.SeedSequence:
    """SeedSequence([seed, sha256(site), number]): a person never depends on how many others there are."""
    site_key = int.from_bytes(hashlib.sha256(site.encode()).digest()[:8], "big")
    return np.random.SeedSequence([seed, site_key, number])


def follow_up(worst: int, index: int, rng: np.random.Generator) -> int:
    """Grade of visit `index`: the worst first, then it stays or heals by a grade or two; the healthy stay healthy."""
    drop = int(rng.choice(3, p=(0.6, 0.3, 0.1)))
    return max(0, worst - drop) if index else worst
