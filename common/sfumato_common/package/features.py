"""Published vectors: one safetensors file of arrays, whose metadata is their card; read as data, checked strictly."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load, save

from sfumato_common.encoders.settings import EncoderTerms
from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.files import canonical_json
from sfumato_common.strict import Strict, parse
from sfumato_common.study.words import GuaranteeLevel
from sfumato_common.types import AnyArray

FILE = "features.safetensors"
Floats = npt.NDArray[np.float32]
_FORMAT, _CARD = "sfumato-features/1", "card"
_COVERS = (
    "Everything in this file that depends on patients: vectors are drawn from Gaussians that were fitted to the sites' "
    "noised answers, which is post-processing. No site signed it. The epsilon is that of the whole study, for the "
    "patient who pays most. Matrix and offset are public. The encoder's training images are public by declaration, and "
    "no epsilon here covers them."
)
_BARE = "NO PRIVACY: the answers behind these vectors left without differential privacy."


class FeaturesCard(Strict):
    """What a file of vectors says of itself: guarantee level, what it costs a patient, and what that covers."""

    format: Literal["sfumato-features/1"]
    study: str
    plan_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    guarantee: GuaranteeLevel
    epsilon: float | None
    delta: float
    unit: Literal["patient"]
    adjacency: Literal["add-remove"]
    covers: str
    labels: list[str]
    sites: list[str]
    encoder: EncoderTerms

    @classmethod
    def of(
        cls,
        study: str,
        plan_hash: str,
        epsilon: float | None,
        delta: float,
        labels: list[str],
        sites: list[str],
        encoder: EncoderTerms,
    ) -> FeaturesCard:
        """The card of a study; `epsilon` None where it left without privacy, `sites` none where all are one."""
        return cls(
            format="sfumato-features/1",
            study=study,
            plan_hash=plan_hash,
            guarantee="heuristic" if epsilon is None else "formal",
            epsilon=epsilon,
            delta=delta,
            unit="patient",
            adjacency="add-remove",
            covers=_BARE if epsilon is None else _COVERS,
            labels=labels,
            sites=sites,
            encoder=encoder,
        )


@dataclass(frozen=True, eq=False)
class Features:
    """`vectors` [N, d], rows of `labels` and of `sites` in the card [N], and the map: embedding @ `matrix` + `offset`.

    `sites` is None where vectors stand for all sites together.
    """

    vectors: Floats
    labels: npt.NDArray[np.int64]
    sites: npt.NDArray[np.int64] | None
    matrix: Floats
    offset: Floats
    card: FeaturesCard

    def encode(self) -> bytes:
        """The file."""
        arrays: dict[str, AnyArray] = {
            "vectors": self.vectors,
            "labels": self.labels,
            "matrix": self.matrix,
            "offset": self.offset,
        }
        if self.sites is not None:
            arrays["sites"] = self.sites
        return bytes(save(arrays, metadata={_CARD: canonical_json(self.card.model_dump()).decode()}))


def read_features(data: bytes) -> Features:
    """Vectors and their card from the bytes of a published `features.safetensors`.

    Raises VerificationError for a file that is none, or whose arrays do not fit each other and the card. Whether a
    coordinator published it is for `verify_dataset` to say.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        card = parse(json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_CARD]), FeaturesCard, FILE)
        arrays = load(data)
    except (SafetensorError, ConfigError, ValueError, KeyError, TypeError, RecursionError, AttributeError):
        raise VerificationError(f"{FILE} is malformed; do not trust it") from None
    if arrays.keys() - {"sites"} != {"vectors", "labels", "matrix", "offset"}:
        raise VerificationError(f"{FILE} holds other arrays than vectors need; do not trust it")
    sites, matrix, offset = arrays.get("sites"), arrays["matrix"], arrays["offset"]
    found = Features(arrays["vectors"], arrays["labels"], sites, matrix, offset, card)
    if not _fits(found):
        raise VerificationError(f"{FILE} holds other arrays than its card says; do not trust it")
    return found


def _fits(found: Features) -> bool:
    if (found.sites is None) == bool(found.card.sites):
        return False
    count, width = found.vectors.shape if found.vectors.ndim == 2 else (-1, -1)
    floats = {"vectors": (count, width), "matrix": (found.card.encoder.length, width), "offset": (width,)}
    for name, shape in floats.items():
        value = getattr(found, name)
        if value.dtype != np.float32 or value.shape != shape or not np.isfinite(value).all():
            return False
    numbers = [(found.labels, len(found.card.labels))]
    numbers += [] if found.sites is None else [(found.sites, len(found.card.sites))]
    return all(
        value.dtype == np.int64 and value.shape == (count,) and ((value >= 0) & (value < most)).all()
        for value, most in numbers
    )
