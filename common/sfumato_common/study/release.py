"""What a plan asks each site to release: one strict model a method, so that no key means nothing.

`images` is a public number for every method: how many images come out may not tell how many patients there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from sfumato_common.encoders.settings import ContentAndStyle
from sfumato_common.generators import GENERATORS
from sfumato_common.generators.settings import Positive
from sfumato_common.study.counted import Counted, ImageCount
from sfumato_common.study.latents import Cadp, DpGlow
from sfumato_common.study.words import Fill, GuaranteeLevel

if TYPE_CHECKING:
    SampledKind: TypeAlias = str
    WalkedKind: TypeAlias = str
else:
    # the models that may be sampled, and those whose latent space methods walk in
    SampledKind = Literal[(*GENERATORS, "best")]
    WalkedKind = Literal[tuple(kind for kind, record in GENERATORS.items() if record.latent)]


class Sampling(Counted):
    """DP sampling: images drawn from `model`; `best` is the one that the plan's choice stage finds best."""

    method: Literal["dp-sampling"] = "dp-sampling"
    """Images are drawn from the model; formal."""
    model: SampledKind
    """Which model: a stage's kind, or `best`, the one that the choice stage finds best."""


class Filling(Sampling):
    """DP sampling in places that lack a group; no plan asks for it by itself (see `Grouped`)."""

    method: Fill  # type: ignore[assignment]


class Inverting(Counted):
    """What methods in a model's latent space share: how records become codes.

    In the W spaces of generators `encoder_steps` train an encoder on generated pairs alone, and `refinement_steps` move
    each code to its image. A space whose codes follow from a fixed map, that of `appearance`, has neither.
    """

    model: WalkedKind = "gan"
    """The model in whose latent space the method works."""
    encoder_steps: Annotated[int, Field(ge=0, le=100_000)] = 300
    """Steps that train the encoder by which records become codes."""
    refinement_steps: Annotated[int, Field(ge=0, le=1000)] = 30
    """Steps that bring each code nearer to its record."""


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
    """The least number of patients in a group."""
    groups: Literal["within-label", "l-diverse"] = "within-label"
    """Groups of one label, or of at least `least_labels` labels."""
    least_labels: Annotated[int, Field(ge=2, le=64)] = 2
    """Under `l-diverse`: labels in each group."""
    remainder: Literal["merge", "suppress"] = "merge"
    """Patients who make no whole group: joined to one, or left out."""
    distance: Literal["image", "embedding", "random"] = "random"
    """Who is near: whose images are alike when blurred, or to an embedding of the site's own; or anybody."""
    # each left out of the digest where it says nothing: plans from before it keep theirs
    views: Literal["mean", "apart", "mirrored"] = Field(default="mean", exclude_if=lambda way: way == "mean")
    """Which of a patient's images enters a group: their mean, groups a view, or views mirrored onto one side."""
    filled_at: dict[str, ImageCount] = Field(default_factory=dict, exclude_if=lambda sites: not sites)
    """At a site that lacks groups: how many images are drawn from the model instead; those are formal."""

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
    """The image of a group's mean code; syntactic."""


class KSalsa(Grouped, ContentAndStyle):
    """k-SALSA (Jeon et al. 2022): the centroid, moved by `steps` of Adam to its group's content and local style.

    The paper's `learning_rate` may leave blotches on images whose group has little in common; 0.03 leaves fewer. Steps
    and weights end at ten times the paper's: beyond, an image may follow the one member with the loudest texture.

    Content is compared by `content_encoder` and style by `style_encoder`, given public networks, as in the paper (MoCo,
    VGG19). Without them by a small network that the site trains on its own images in `embedding_steps`.
    """

    method: Literal["k-salsa"]
    """That image, moved to its group's content and local style; syntactic."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 100
    """Steps of Adam."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Of Adam."""
    content_weight: Annotated[float, Field(ge=0, le=1000)] = 100.0
    """Weight of the content's loss."""
    style_weight: Annotated[float, Field(ge=0, le=1e-5)] = 1e-6
    """Weight of the local style's loss."""
    embedding_steps: Annotated[int, Field(ge=1, le=100_000)] = 200
    """Steps that train the site's own network, where no encoder is given."""


class LinearWalk(Grouped):
    """Straight lines between the mean codes of two groups of one label: `points` images a walk, its ends left out."""

    method: Literal["linear-walk"]
    """Points on a line between two groups' mean codes; syntactic."""
    points: Annotated[int, Field(ge=1, le=256)] = 6
    """Images a walk, its ends left out."""


class PlanWalk(LinearWalk):
    """PLAN (Pennisi et al. 2023): such walks bent away from identities by `steps` of Adam.

    Steps end at four times the paper's, weights at a thousand times: there the other terms no longer count. `elastic`
    says in what unit a walk's strides count: the space's own (`absolute`, as published), in which the published weights
    bend nothing where codes have hundreds of numbers, or the walk's length (`relative`).
    """

    method: Literal["plan-walk"]  # type: ignore[assignment]
    """Such walks bent away from identities; heuristic."""
    # plans from before it were accepted with the space's own unit: they keep meaning and digest
    elastic: Literal["absolute", "relative"] = Field(default="absolute", exclude_if=lambda unit: unit == "absolute")
    """Unit of the pull back to the line: the space's own, or the line's length, at which the published weights bend."""
    steps: Annotated[int, Field(ge=1, le=2000)] = 500
    """Steps of Adam."""
    identity_weight: Annotated[float, Field(ge=0, le=100)] = 0.1
    """Weight of the distance from identities."""
    class_weight: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """Weight of the label's loss."""
    classifier_steps: Annotated[int, Field(ge=1, le=100_000)] = 300
    """Steps that train the site's classifiers."""

    @property
    def guarantee_level(self) -> GuaranteeLevel:
        """Walks bend by a classifier of all training patients, so that no image is made from its groups alone."""
        return "heuristic"


class DpKAverage(Inverting):
    """Means of `k` codes, each clipped to L2 norm `radius` about its component's mean code, with Gaussian noise.

    The noise's standard deviation is `noise_multiplier` x 2 radius / k. Groups are drawn at random within labels.
    """

    method: Literal["dp-k-average"]
    """Noised means of k clipped codes; formal."""
    k: Annotated[int, Field(ge=2, le=1000)] = 10
    """Patients in a mean."""
    radius: Positive
    """L2 norm that a code is clipped to."""
    noise_multiplier: Positive
    """Noise on each mean, over its sensitivity of 2 radius / k."""


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
