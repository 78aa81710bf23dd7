"""What a plan asks each site to release: one strict model a method, so that no key means nothing.

`images` is a public number for every method: how many images come out may not tell how many patients there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag, model_validator

from sfumato_common.encoders.settings import ContentAndStyle, MayNameEncoders
from sfumato_common.generators import GENERATORS
from sfumato_common.generators.settings import Positive
from sfumato_common.study.words import Fill, GuaranteeLevel

if TYPE_CHECKING:
    SampledKind: TypeAlias = str
    WalkedKind: TypeAlias = str
    NoisedKind: TypeAlias = str
else:
    # the models that may be sampled, whose latent space methods walk in, and whose latents methods noise
    SampledKind = Literal[(*GENERATORS, "best")]
    WalkedKind = Literal[tuple(kind for kind, record in GENERATORS.items() if record.latent)]
    NoisedKind = Literal[tuple(kind for kind, record in GENERATORS.items() if record.flow)]
ImageCount = Annotated[int, Field(ge=1, le=100_000)]


class Counted(MayNameEncoders):
    """How many images: `images` at every site but those that `images_at` gives a number of their own."""

    images: ImageCount
    images_at: dict[str, ImageCount] = Field(default_factory=dict)

    @property
    def guarantee_level(self) -> GuaranteeLevel:
        """What the method promises of its images, where the models that they come from are private."""
        return "formal"

    def at(self, site: str) -> int:
        """The number of images at `site`."""
        return self.images_at.get(site, self.images)

    @property
    def most(self) -> int:
        """The largest number at any site."""
        return max([self.images, *self.images_at.values()])


class Sampling(Counted):
    """DP sampling: images drawn from `model`; `best` is the one that the plan's choice stage finds best."""

    method: Literal["dp-sampling"] = "dp-sampling"
    model: SampledKind


class Filling(Sampling):
    """DP sampling in places that lack a group; no plan asks for it by itself (see `Grouped`)."""

    method: Fill  # type: ignore[assignment]


class Inverting(Counted):
    """What methods in a model's latent space share: how records become codes.

    In the W spaces of generators `encoder_steps` train an encoder on generated pairs alone, and `refinement_steps` move
    each code to its image. A space whose codes follow from a fixed map, that of `appearance`, has neither.
    """

    model: WalkedKind = "gan"
    encoder_steps: Annotated[int, Field(ge=0, le=100_000)] = 300
    refinement_steps: Annotated[int, Field(ge=0, le=1000)] = 30


class Grouped(Inverting):
    """Groups of at least `k` patients. `within-label` groups disclose their label, which is declared.

    `l-diverse` groups hold patients of at least `least_labels` labels. Patients beyond the last whole group join one
    (`merge`) or are left out (`suppress`). By `distance` near patients share a group: by the coarse part of their
    images, by an embedding that the site trains on its own, or whoever chance puts together. Groups that are alike
    serve better and are recognised far better (docs/methods.md). One grouping a study: every item of a plan has the
    same six terms.

    By `views: mean` a patient brings the mean of all images, two eyes or a film from the side among them. By `apart`
    each patient brings one image, and a group's images are of one laterality and view; by `mirrored` left ones are
    mirrored first, and count as right.

    Where a site has too few patients for all its images, so many of them as `filled_at` says for it are drawn from the
    model instead (`Filling`). The number is agreed in the plan: one that followed from the cohort would tell its size.
    """

    k: Annotated[int, Field(ge=2, le=1000)] = 5
    groups: Literal["within-label", "l-diverse"] = "within-label"
    least_labels: Annotated[int, Field(ge=2, le=64)] = 2
    remainder: Literal["merge", "suppress"] = "merge"
    distance: Literal["image", "embedding", "random"] = "random"
    # each left out of the digest where it says nothing: plans from before it keep theirs
    views: Literal["mean", "apart", "mirrored"] = Field(default="mean", exclude_if=lambda way: way == "mean")
    filled_at: dict[str, ImageCount] = Field(default_factory=dict, exclude_if=lambda sites: not sites)

    @property
    def guarantee_level(self) -> GuaranteeLevel:
        """k-anonymity of one step."""
        return "syntactic"

    @property
    def grouping(self) -> tuple[int | str, ...]:
        """The terms that decide who shares a group; `least_labels` counts only where it is used."""
        least = self.least_labels if self.groups == "l-diverse" else 0
        # groups that were frozen before there were views are those of `mean`
        views = () if self.views == "mean" else (self.views,)
        return self.k, self.groups, least, self.remainder, self.distance, *views

    @property
    def least_patients(self) -> int:
        """The number of patients that one group takes."""
        return max(self.k, self.least_labels) if self.groups == "l-diverse" else self.k


class KSame(Grouped):
    """The centroid baseline (Newton et al. 2005): the image of a group's mean code."""

    method: Literal["k-same"]


class KSalsa(Grouped, ContentAndStyle):
    """k-SALSA (Jeon et al. 2022): the centroid, moved by `steps` of Adam to its group's content and local style.

    The paper's `learning_rate` may leave blotches on images whose group has little in common; 0.03 leaves fewer. Steps
    and weights end at ten times the paper's: beyond, an image may follow the one member with the loudest texture.

    Content is compared by `content_encoder` and style by `style_encoder`, given public networks, as in the paper (MoCo,
    VGG19). Without them by a small network that the site trains on its own images in `embedding_steps`.
    """

    method: Literal["k-salsa"]
    steps: Annotated[int, Field(ge=1, le=1000)] = 100
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    content_weight: Annotated[float, Field(ge=0, le=1000)] = 100.0
    style_weight: Annotated[float, Field(ge=0, le=1e-5)] = 1e-6
    embedding_steps: Annotated[int, Field(ge=1, le=100_000)] = 200


class LinearWalk(Grouped):
    """Straight lines between the mean codes of two groups of one label: `points` images a walk, its ends left out."""

    method: Literal["linear-walk"]
    points: Annotated[int, Field(ge=1, le=256)] = 6


class PlanWalk(LinearWalk):
    """PLAN (Pennisi et al. 2023): such walks bent away from identities by `steps` of Adam.

    Steps end at four times the paper's, weights at a thousand times: there the other terms no longer count. `elastic`
    says in what unit a walk's strides count: the space's own (`absolute`, as published), in which the published weights
    bend nothing where codes have hundreds of numbers, or the walk's length (`relative`).
    """

    method: Literal["plan-walk"]  # type: ignore[assignment]
    # plans from before it were accepted with the space's own unit: they keep meaning and digest
    elastic: Literal["absolute", "relative"] = Field(default="absolute", exclude_if=lambda unit: unit == "absolute")
    steps: Annotated[int, Field(ge=1, le=2000)] = 500
    identity_weight: Annotated[float, Field(ge=0, le=100)] = 0.1
    class_weight: Annotated[float, Field(ge=0, le=1000)] = 1.0
    classifier_steps: Annotated[int, Field(ge=1, le=100_000)] = 300

    @property
    def guarantee_level(self) -> GuaranteeLevel:
        """Walks bend by a classifier of all training patients, so that no image is made from its groups alone."""
        return "heuristic"


class DpKAverage(Inverting):
    """Means of `k` codes, each clipped to L2 norm `radius` about its component's mean code, with Gaussian noise.

    The noise's standard deviation is `noise_multiplier` x 2 radius / k. Groups are drawn at random within labels.
    """

    method: Literal["dp-k-average"]
    k: Annotated[int, Field(ge=2, le=1000)] = 10
    radius: Positive
    noise_multiplier: Positive


class Latent(Counted):
    """What local-DP methods in a flow's latent space share: each record clipped and noised on its own.

    Where `tells_labels`, an image carries its record's own label, which no epsilon covers and the site's policy has to
    allow.

    Laplace: `clip: l1` to norm `radius`, or `elementwise` to [-radius, radius]; `epsilon` is the total over all
    released coordinates. Gaussian: `clip: l2`, standard deviation `noise_multiplier` x 2 radius. Only the `coordinates`
    coarsest latent coordinates are released (all without it); the others are drawn anew from the prior, at no cost.
    """

    model: NoisedKind = "flow"
    mechanism: Literal["laplace", "gaussian"] = "laplace"
    clip: Literal["l1", "elementwise", "l2"] = "l1"
    radius: Positive
    epsilon: Positive | None = None
    noise_multiplier: Positive | None = None
    coordinates: Annotated[int, Field(ge=1)] | None = None

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
    label: Literal["drawn", "public"] = "drawn"

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
    label: Literal["public", "randomised"] = "randomised"
    label_epsilon: Positive | None = None
    decode: Literal["same", "resampled"] = "same"

    @property
    def tells_labels(self) -> bool:
        """Under `label: public`, unless images are decoded under labels that were drawn."""
        return self.label == "public" and self.decode == "same"

    @model_validator(mode="after")
    def _label_cost(self) -> Cadp:
        if (self.label == "randomised") != (self.label_epsilon is not None):
            raise ValueError("'label_epsilon' is the price of 'label: randomised'; give both or neither")
        return self


def _method(value: Any) -> str:
    found = value.get("method", "dp-sampling") if isinstance(value, dict) else getattr(value, "method", "dp-sampling")
    return str(found)


AnyItem = Sampling | Filling | KSame | KSalsa | LinearWalk | PlanWalk | DpKAverage | DpGlow | Cadp
# without a method an item asks for DP sampling
ReleaseItem = Annotated[
    Annotated[Sampling, Tag("dp-sampling")]
    | Annotated[KSame, Tag("k-same")]
    | Annotated[KSalsa, Tag("k-salsa")]
    | Annotated[LinearWalk, Tag("linear-walk")]
    | Annotated[PlanWalk, Tag("plan-walk")]
    | Annotated[DpKAverage, Tag("dp-k-average")]
    | Annotated[DpGlow, Tag("dp-glow")]
    | Annotated[Cadp, Tag("cadp")],
    Discriminator(_method),
]
