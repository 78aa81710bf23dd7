"""What candidates show of themselves, whoever they resemble: nothing, one another, impossible greys, or letters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sfumato_client.audit.attacks.base import rows_of_chunk
from sfumato_client.audit.rules import IDENTICAL, Finding
from sfumato_common.errors import DataError
from sfumato_common.metrics.nearest import Floats, fingerprints, images_at_once, is_flat
from sfumato_common.study.gate_rules import GateRules
from sfumato_common.types import AnyArray, ByteImages, to_unit_range

# whether text that is no marker stands in display values 0..1, [H, W] or [H, W, 3]
TextReader = Callable[[AnyArray], bool]
_WIDENED = 0.5  # of the range of real images on either side


@dataclass(frozen=True)
class _Line:
    """One line of the table: its name, what it is the share or number of, the policy's limit, and what to change."""

    name: str
    compares: str
    limit: Callable[[GateRules], float]
    advice: str


_BLANK = _Line(
    "blank",
    "share of candidates that show nothing",
    lambda rules: rules.blank_share_limit,
    "the generator gives empty images: look at its rounds, or lower the noise by a larger epsilon",
)
_REPEATS = _Line(
    "repeats",
    f"share of candidates within {IDENTICAL} of another candidate of the set",
    lambda rules: rules.repeat_share_limit,
    "the generator has few images to give: train longer, or ask for fewer images",
)
_RANGE = _Line(
    "range",
    "share of candidates darker, brighter, flatter or starker than real images by half their range",
    lambda rules: rules.range_share_limit,
    "the generator has left what images look like: train longer, or lower the noise by a larger epsilon",
)
_TEXT = _Line(
    "text",
    "candidates in which text was read",
    lambda rules: 0.0,
    "letters stand in training images: ingest them again with 'text: mask' or 'text: reject', and train anew",
)


def apply_to_candidates(
    of: str, images: ByteImages, real: ByteImages, rules: GateRules, has_text: TextReader | None
) -> list[Finding]:
    """Every line of the table on one set of images [N, S, S(, 3)].

    Raises DataError where the policy has text refused and nothing reads text.
    """
    blank = is_flat(images)
    shown = images[~blank]
    found = [
        (_BLANK, float(blank.mean())),
        (_REPEATS, float((_nearest_other(fingerprints(shown)) < IDENTICAL).mean())),
        (_RANGE, float(_outside(levels(shown), levels(real)).mean())),
    ]
    if rules.text == "refused":
        if has_text is None:
            raise DataError("the policy has text in candidates refused, and nothing that reads text was given")
        found.append((_TEXT, float(sum(has_text(picture) for picture in _display(shown)))))
    return [
        Finding(of, line.name, line.compares, value, "at most", line.limit(rules), line.advice) for line, value in found
    ]


def levels(images: ByteImages) -> Floats:
    """Mean and deviation [N, 2] of images' grey levels in [-1, 1]."""
    size, parts = images_at_once(images), []
    for at in range(0, len(images), size):
        flat = to_unit_range(np.asarray(images[at : at + size])).reshape(len(images[at : at + size]), -1)
        parts.append(np.stack([flat.mean(axis=1), flat.std(axis=1)], axis=1))
    return np.concatenate(parts)


def _outside(own: Floats, real: Floats) -> npt.NDArray[np.bool_]:
    low, high = real.min(axis=0), real.max(axis=0)
    room = _WIDENED * (high - low)
    return np.asarray(((own < low - room) | (own > high + room)).any(axis=1))


def _nearest_other(rows: Floats) -> Floats:
    """Distance [N] of each fingerprint to the nearest of another row, a chunk at a time; 2 for one alone."""
    best = np.full(len(rows), -1.0, np.float32)
    size = rows_of_chunk(8 * len(rows), len(rows))
    for at in range(0, len(rows), size):
        products = rows[at : at + size] @ rows.T
        here = np.arange(len(products))
        products[here, at + here] = -1.0
        best[at : at + size] = products.max(axis=1)
    return np.asarray(np.sqrt(np.maximum(2.0 - 2.0 * best, 0.0)), np.float32)


def _display(images: ByteImages) -> Sequence[AnyArray]:
    top = np.float32(np.iinfo(images.dtype).max)
    return [image.astype(np.float32) / top for image in images]
