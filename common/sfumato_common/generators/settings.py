"""What stages state: the bases of all stages' settings, and what is asked of them. Nothing here loads torch.

Every number is public and agreed before data is touched. A stage's own class stands in its generator's folder.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import Field, model_validator

from sfumato_common.accounting.events import GaussianRelease, Mechanism, SampledGaussian
from sfumato_common.encoders.settings import MayNameEncoders
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.white_form import WhiteForm
from sfumato_common.strict import Strict

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# How a site computes clipped sums; all give the same sums. "auto" takes what the model declares.
EngineName = Literal["auto", "loop", "opacus", "opacus-ew", "bookkeeping", "vmap", "vmap-compiled"]


class PublicStart(Strict):
    """Weights that a stage starts from, made from public data alone: `sha256` pins them, `source` declares them."""

    source: Literal["phantom", "textures", "checkpoint"]
    """What the weights were made from: a declaration."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Hash over names and values of all weights."""


class StageSettings(MayNameEncoders):
    """What every stage states: its `kind`, a literal, and a `noise_multiplier`; and what is asked of it."""

    if TYPE_CHECKING:  # fields of the classes below this one, each in the place where a plan's reader looks for it

        @property
        def kind(self) -> str:
            """A literal, under which the stage stands in plans."""
            ...

        @property
        def noise_multiplier(self) -> float:
            """Of the mechanism of every round."""
            ...

        @property
        def rounds(self) -> int:
            """How many exchanges the stage takes."""
            ...

    @property
    @abstractmethod
    def event(self) -> Mechanism:
        """What ONE round costs a training patient under a private plan."""

    @property
    def steps(self) -> int:
        """How many mechanisms ONE round runs at a site: the steps of DP-SGD, or one release."""
        return self.event.steps if isinstance(self.event, SampledGaussian) else 1

    @property
    def public_start(self) -> PublicStart | None:
        """The public weights that the stage starts from, where it states some."""
        return None

    @property
    def fewest_replies(self) -> int:
        """How many sites must answer for a round to count."""
        return 1

    @property
    def foreign_detail(self) -> str | None:
        """What of its images is not the patients', in plain words for a dataset's report; None: nothing is added."""
        return None

    @property
    def goes_on_from(self) -> Collection[str]:
        """Kinds of first stages that it may follow."""
        return ("spectral",)

    def begins_at(self, network: str) -> str | None:
        """The earlier stage, by kind, whose released `network` this stage begins with; None: at its public start."""
        return None

    def check(self, plan: PublicPlan) -> None:
        """Raise ValueError with one sentence where `plan`, which has this stage, does not allow it."""
        return


class OneShotStage(StageSettings):
    """One exchange: whatever a site sends is noised once, as one Gaussian release."""

    @property
    def rounds(self) -> int:
        """A one-shot release is one exchange."""
        return 1

    @property
    def event(self) -> Mechanism:
        """All draws together cost one Gaussian release."""
        return GaussianRelease(self.noise_multiplier)


class MomentsStage(OneShotStage):
    """A stage that a plan may begin with: by its released moments, flows and diffusion whiten what they learn."""

    by_site: bool = False
    """Every site gets classes of its own, drawn towards the pooled ones as far as the noise demands."""

    @abstractmethod
    def white_form(self, plan: PublicPlan) -> WhiteForm:
        """Of whitened images."""


class ServerOptimiser(Strict):
    """How the coordinator joins the sites' updates, and follows them: as they are, by FedAvgM or by FedAdam.

    `combine` is their mean; or the mean of each coordinate without its `trimmed` largest and smallest values, so that
    as many dishonest sites cannot leave what honest ones span (Yin et al. 2018); or their mean after updates longer
    than the median one were shortened to it (norm bound: Sun et al. 2019). `learning_rate` multiplies the step. Adam's
    steps are about that long whatever the updates are, so that it must be stated there; 0.01 is usual.
    """

    kind: Literal["average", "momentum", "adam"] = "average"
    """Updates as they are, with momentum (FedAvgM), or by FedAdam."""
    learning_rate: Positive = 1.0
    """Multiplies the step; `adam` has to state it."""
    momentum: Annotated[float, Field(ge=0, le=0.99)] = 0.9
    """Of `momentum` and `adam`."""
    # left out of a plan's digest where they are not used: plans from before them keep theirs
    combine: Literal["mean", "trimmed-mean", "norm-bound"] = Field(default="mean", exclude_if=lambda way: way == "mean")
    """Their mean; without the largest and smallest values; or after long ones were shortened."""
    trimmed: Annotated[int, Field(ge=1, le=127)] = Field(default=1, exclude_if=lambda sites: sites == 1)
    """Under `trimmed-mean`: values that are left out at each end."""

    @property
    def fewest_replies(self) -> int:
        """How many replies a round needs for anything to be left of them."""
        return 2 * self.trimmed + 1 if self.combine == "trimmed-mean" else 1

    @model_validator(mode="after")
    def _step_of_adam(self) -> ServerOptimiser:
        if self.kind == "adam" and "learning_rate" not in self.model_fields_set:
            raise ValueError("adam needs its own learning_rate, about the length of a step; 0.01 is usual")
        return self


class DpSgdStage(StageSettings):
    """What every DP-SGD stage states: Poisson rate over patients, clipping norm, noise multiplier, steps, rounds.

    A patient counts as the mean of at most `images_per_patient` of its images, clipped once. `proximal` pulls a site's
    weights towards the round's start (FedProx).
    """

    rounds: Annotated[int, Field(ge=1, le=1000)]
    """Exchanges of the stage."""
    local_steps: Annotated[int, Field(ge=1, le=10_000)]
    """DP-SGD steps of a site in each round."""
    sampling_rate: Annotated[float, Field(gt=0, le=0.5)]
    """A patient's chance to be in a step's batch."""
    clipping_norm: Positive
    """L2 norm that a patient's gradient is clipped to."""
    noise_multiplier: Positive
    """Noise over the clipping norm; left out where the plan has a budget."""
    learning_rate: Positive
    """Of Adam at the sites."""
    images_per_patient: Annotated[int, Field(ge=1, le=16)] = 1
    """How many of a sampled patient's images make the one gradient that is clipped."""
    engine: EngineName = "auto"
    """How gradients are computed: the same sums at another speed. `auto` is the one that the model declares."""
    start: PublicStart | None = None
    """Public weights to start from."""
    server: ServerOptimiser = ServerOptimiser()
    """How the coordinator makes the next model of the sites' updates."""
    proximal: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """How strongly a site's weights are pulled towards the round's start (FedProx)."""

    @property
    def event(self) -> Mechanism:
        """`local_steps` Poisson-subsampled Gaussian mechanisms."""
        return SampledGaussian(self.noise_multiplier, self.sampling_rate, self.local_steps)

    @property
    def public_start(self) -> PublicStart | None:
        """`start`."""
        return self.start

    @property
    def fewest_replies(self) -> int:
        """Of its `server`."""
        return self.server.fewest_replies


def white_form(plan: PublicPlan) -> WhiteForm:
    """The form of whitened images by the model that `plan` begins with."""
    first = plan.stages[0]
    assert isinstance(first, MomentsStage), "a plan begins with a model of moments"
    return first.white_form(plan)


class WhiteningStage(DpSgdStage):
    """A stage that learns whitened images, whichever model the plan begins with."""

    @property
    def goes_on_from(self) -> Collection[str]:
        """All."""
        return ("spectral", "appearance", "codec")

    def check_divides(self, plan: PublicPlan, parts: int, what: str) -> None:
        """Raise ValueError unless `parts`, which the stage calls `what`, divide the side of a whitened image."""
        side = white_form(plan).size
        if side % parts:
            whose = "image.size" if plan.base == "spectral" else f"the {side} places a side of {plan.base} codes"
            raise ValueError(f"{whose} must be divisible by {what} = {parts} for the {self.kind}")


S = TypeVar("S", bound=StageSettings)


def stage_of(plan: PublicPlan, settings: type[S]) -> S:
    """The plan's stage with settings of that class. Raises KeyError when the plan has none."""
    for stage in plan.stages:
        if isinstance(stage, settings):
            return stage
    raise KeyError(settings.__name__)
