"""Linkage by plain correlation: is the record that a released image is most like one of those behind it?

The attacker holds a gallery of records and trains nothing: Pearson's correlation of pixels, at most 64 a side. It sees
what a verifier of identities overlooks, and the reverse. Who is behind an image only the release knows, so this is for
benches; a steward's gate has the nearest distances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sfumato_client.audit.attacks.intervals import Interval, share_interval
from sfumato_common.metrics.nearest import Floats, images_at_once
from sfumato_common.types import ByteImages, to_unit_range

Indices = npt.NDArray[np.int64]
_SIDE = 64


@dataclass(frozen=True)
class Linkage:
    """Share of `images` whose most correlated record is of a patient behind them; `chance` is that of a guess."""

    images: int
    share: float
    interval: Interval
    chance: float


def correlation_linkage(
    images: ByteImages, gallery: ByteImages, patient_index: Indices, behind: Sequence[Indices]
) -> Linkage:
    """Linkage of [N] released images to a gallery [G] of the patients [G]; `behind` names those behind each image.

    Images that nobody is behind are left out. Records that are equally like an image share the hit. Raises ValueError
    where nobody is behind any.
    """
    rows = [number for number, patients in enumerate(behind) if len(patients)]
    if not rows:
        raise ValueError("nobody is behind any of the images: there is nothing to link")
    # equal records must tie, whatever the last bits of a product are
    like = (_standardised(images[rows]) @ _standardised(gallery).T).round(5)
    first = like == like.max(axis=1, keepdims=True)
    own = np.stack([np.isin(patient_index, behind[row]) for row in rows])
    hits = float(((first & own).sum(axis=1) / first.sum(axis=1)).sum())
    patients = len(np.unique(patient_index))
    chance = float(np.mean([len(np.unique(behind[row])) for row in rows])) / patients
    return Linkage(len(rows), hits / len(rows), share_interval(round(hits), len(rows)), chance)


def _standardised(images: ByteImages) -> Floats:
    """Rows [N, D] of mean 0 and length 1, of images averaged to at most 64 pixels a side; zeros for a constant one."""
    size, parts = images_at_once(images), []
    for first in range(0, len(images), size):
        pixels = to_unit_range(images[first : first + size])
        count, channels, height, width = pixels.shape
        factor = max(f for f in range(1, max(1, height // _SIDE) + 1) if height % f == 0 == width % f)
        cells = pixels.reshape(count, channels, height // factor, factor, width // factor, factor).mean((3, 5))
        flat = cells.reshape(count, -1)
        flat = flat - flat.mean(axis=1, keepdims=True)
        parts.append(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6))
    return np.concatenate(parts).astype(np.float32)
