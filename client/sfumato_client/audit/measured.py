"""What the gate's own rules compare, beside distances: matches by identity verifiers; and how scores are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sfumato_client.anonymise.candidates import CandidateSet
from sfumato_client.audit.attacks.identity import Matches, given_verifier, re_identification, train_verifier
from sfumato_client.dataset import Cohort
from sfumato_common.encoders.encoder import Encoder
from sfumato_common.errors import DataError
from sfumato_common.metrics.nearest import Floats
from sfumato_common.types import ByteImages

Quantiles = tuple[str, list[float]]


def matches_of(
    candidates: Sequence[CandidateSet],
    shown: Sequence[ByteImages],
    train: Cohort,
    control: ByteImages,
    encoder: Encoder | None,
) -> Sequence[tuple[str, str, Matches]]:
    """What the identity verifiers find in every set that was made from records: the set, which verifier, what it found.

    Raises DataError when a verifier cannot be made, or does not give a number for every image.
    """
    made = [(item.name, images) for item, images in zip(candidates, shown, strict=True) if item.patients > 0]
    if not made:
        return []
    verifiers = {"": train_verifier(train)}
    if encoder is not None:
        verifiers[", by the given encoder"] = given_verifier(encoder, train)
    found = [
        (name, which, re_identification(verifier, images, control))
        for which, verifier in verifiers.items()
        for name, images in made
    ]
    if not all(np.isfinite(m.candidates).all() and np.isfinite(m.strangers).all() for _, _, m in found):
        raise DataError("a score of the identity verifier is not finite")
    return found


def quantiles_of(distances: Floats) -> list[float]:
    """The 0, 1, 5, 25, 50, 75 and 100 % quantiles, for the steward alone."""
    return [round(float(value), 4) for value in np.quantile(distances, [0, 0.01, 0.05, 0.25, 0.5, 0.75, 1])]


def quantile_rows(quantiles: Sequence[Quantiles]) -> list[dict[str, Any]]:
    """Plain data of quantiles, by what they are of."""
    return [{"of": name, "values": values} for name, values in quantiles]
