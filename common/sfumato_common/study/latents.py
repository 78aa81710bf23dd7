"""What a plan may ask of methods that noise each record in a flow's latent space: DP-GLOW and CADP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from sfumato_common.generators import GENERATORS
from sfumato_common.generators.settings import Positive
from sfumato_common.study.counted import Counted
from sfumato_common.study.words import GuaranteeLevel

if TYPE_CHECKING:
    NoisedKind: TypeAlias = str
else:
    # the models whose latents methods noise
    NoisedKind = Literal[tuple(kind for kind, record in GENERATORS.items() if record.flow)]


class Latent(Counted):
    """What local-DP methods in a flow's latent space share: each record clipped and noised on its own.

    Where `tells_labels`, an image carries its record's own label, which no epsilon covers and the site's policy has to
    allow.

    Laplace: `clip: l1` to norm `radius`, or `elementwise` to [-radius, radius]; `epsilon` is the total over all
    released coordinates. Gaussian: `clip: l2`, standard deviation `noise_multiplier` x 2 radius. Only the `coordinates`
    coarsest latent coordinates are released (all without it); the others are drawn anew from the prior, at no cost.
    """

    model: NoisedKind = "flow"
    """The flow in whose latents records are noised."""
    mechanism: Literal["laplace", "gaussian"] = "laplace"
    """The noise."""
    clip: Literal["l1", "elementwise", "l2"] = "l1"
    """The norm that a latent is clipped in; `l2` goes with gaussian."""
    radius: Positive
    """The clipping norm."""
    epsilon: Positive | None = None
    """Of laplace: epsilon of one latent."""
    noise_multiplier: Positive | None = None
    """Of gaussian: noise over the sensitivity of 2 radius."""
    coordinates: Annotated[int, Field(ge=1)] | None = None
    """How many coordinates of a latent are kept; the others are drawn. Left out, all are."""

    @property
    def tells_labels(self) -> bool:
        """Whether images go out, or are decoded, under the labels of their records as they are."""
        raise NotImplementedError

    @property
    def guarantee_level(self) -> GuaranteeLevel:
        """Formal, all or but for labels."""
        return "formal, labels public" if self.tells_labels else "formal"

    @model_validator(mode="after")
    def _one_mechanism(self) -> Latent:
        if self.mechanism == "laplace" and (self.epsilon is None or self.noise_multiplier is not None):
            raise ValueError("the laplace mechanism takes 'epsilon', the total, and no 'noise_multiplier'")
        if self.mechanism == "gaussian" and (self.noise_multiplier is None or self.epsilon is not None):
            raise ValueError("the gaussian mechanism takes 'noise_multiplier', and no 'epsilon'")
        if (self.clip == "l2") != (self.mechanism == "gaussian"):
            raise ValueError("clip 'l2' goes with the gaussian mechanism, 'l1' and 'elementwise' with laplace")
        return self


class DpGlow(Latent):
    """DP-GLOW (arXiv 2212.10688): clipped latents with noise, decoded under a label drawn by the released shares."""

    method: Literal["dp-glow"]
    """One noised latent a patient; formal."""
    label: Literal["drawn", "public"] = "drawn"
    """`drawn` by the released shares; or the record's own, `public`, which no epsilon covers."""

    @property
    def tells_labels(self) -> bool:
        """Under `label: public`."""
        return self.label == "public"


class Cadp(Latent):
    """CADP (DeCaF 2022): the same in a conditional flow, with the label public or by K-ary randomised response.

    `decode` says under which condition noised latents become images: the released label (`same`), or one drawn from the
    released shares (`resampled`).
    """

    method: Literal["cadp"]
    """The same in a conditional flow; formal."""
    label: Literal["public", "randomised"] = "randomised"
    """By randomised response, charged; or the record's own, `public`, which no epsilon covers."""
    label_epsilon: Positive | None = None
    """Epsilon of the randomised response."""
    decode: Literal["same", "resampled"] = "same"
    """Decoded under the label that is published, or under one drawn anew."""

    @property
    def tells_labels(self) -> bool:
        """Under `label: public`, unless images are decoded under labels that were drawn."""
        return self.label == "public" and self.decode == "same"

    @model_validator(mode="after")
    def _label_cost(self) -> Cadp:
        if (self.label == "randomised") != (self.label_epsilon is not None):
            raise ValueError("'label_epsilon' is the price of 'label: randomised'; give both or neither")
        return self
