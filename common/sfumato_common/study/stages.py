"""The stages of a study plan, one class a kind; every number is public and agreed before data is touched."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sfumato_common.strict import Strict

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# How a site computes clipped sums; all give the same sums. "auto" takes what the model declares.
EngineName = Literal["auto", "loop", "opacus", "opacus-ew", "bookkeeping", "vmap", "vmap-compiled"]


class SpectralStage(Strict):
    """One-shot class-conditional release of the first `bandwidth` x `bandwidth` DCT coefficients' moments.

    `by_site` fits every site its own classes, drawn towards the pooled ones as far as the noise demands. The radii clip
    features, and features about their mean; `charged` lets a site measure its own first, with a part of the budget.
    """

    kind: Literal["spectral"]
    bandwidth: Annotated[int, Field(ge=4, le=32)]
    clip_radius: Positive
    spread_radius: Positive = 2.0
    noise_multiplier: Positive
    by_site: bool = False
    radii: Literal["fixed", "charged"] = "fixed"

    @property
    def rounds(self) -> int:
        """A one-shot release is one exchange."""
        return 1


class EmbeddingStage(Strict):
    """One-shot class-conditional release of mean features (DCT, scattering, random Fourier); a generator is fitted."""

    kind: Literal["embedding"]
    noise_multiplier: Positive
    width: Annotated[int, Field(ge=8, le=256, multiple_of=8)] = 24
    generator_steps: Annotated[int, Field(ge=1, le=100_000)] = 300

    @property
    def rounds(self) -> int:
        """A one-shot release is one exchange."""
        return 1


class PublicStart(Strict):
    """Weights that a stage starts from, made from public data alone: `sha256` pins them, `source` declares them."""

    source: Literal["phantom", "textures", "checkpoint"]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ServerOptimiser(Strict):
    """How the coordinator follows the sites' mean update: as it is, with momentum (FedAvgM) or by Adam (FedAdam).

    `learning_rate` multiplies the step. Adam's steps are about that long whatever the updates are, so that it must be
    stated there; 0.01 is usual.
    """

    kind: Literal["average", "momentum", "adam"] = "average"
    learning_rate: Positive = 1.0
    momentum: Annotated[float, Field(ge=0, le=0.99)] = 0.9

    @model_validator(mode="after")
    def _step_of_adam(self) -> ServerOptimiser:
        if self.kind == "adam" and "learning_rate" not in self.model_fields_set:
            raise ValueError("adam needs its own learning_rate, about the length of a step; 0.01 is usual")
        return self


class DpSgdStage(Strict):
    """What every DP-SGD stage states: Poisson rate over patients, clipping norm, noise multiplier, steps, rounds.

    A patient counts as the mean of at most `images_per_patient` of its images, clipped once. `proximal` pulls a site's
    weights towards the round's start (FedProx).
    """

    rounds: Annotated[int, Field(ge=1, le=1000)]
    local_steps: Annotated[int, Field(ge=1, le=10_000)]
    sampling_rate: Annotated[float, Field(gt=0, le=0.5)]
    clipping_norm: Positive
    noise_multiplier: Positive
    learning_rate: Positive
    images_per_patient: Annotated[int, Field(ge=1, le=16)] = 1
    engine: EngineName = "auto"
    start: PublicStart | None = None
    server: ServerOptimiser = ServerOptimiser()
    proximal: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class GanStage(DpSgdStage):
    """Generator with a W space and a discriminator without coupled records; only the latter sees real images (DP-SGD).

    `discriminators: per-site` keeps one for every site, and the generator learns from all of them. `generator_start`
    says which earlier stage the generator begins at: it returns spectral samples, or what the embedding stage fitted.
    """

    kind: Literal["gan"]
    width: Annotated[int, Field(ge=8, le=256, multiple_of=8)] = 24
    generator_steps: Annotated[int, Field(ge=1, le=100_000)] = 30
    fakes: Annotated[int, Field(ge=4, le=4096)] = 48
    discriminators: Literal["joint", "per-site"] = "joint"
    generator_start: Literal["spectral", "embedding"] = "spectral"


class FlowStage(DpSgdStage):
    """GLOW or conditional INN under DP-SGD; levels of squeeze, steps of (actnorm, mixing, coupling).

    `dense` couplings of all values end a conditional INN. On the phantom a clipping norm of 0.3 did best of three, and
    a learning rate of 0.005 gives fewer bits than 0.002 and samples that stray less than at 0.02.
    """

    kind: Literal["flow"]
    architecture: Literal["glow", "cinn"] = "glow"
    coupling: Literal["affine", "soft-clamp", "additive"] = "affine"
    levels: Annotated[int, Field(ge=1, le=4)] = 2
    steps_per_level: Annotated[int, Field(ge=1, le=16)] = 3
    hidden: Annotated[int, Field(ge=8, le=256)] = 32
    dense: Annotated[int, Field(ge=0, le=8)] = 2


class ChoiceStage(Strict):
    """Which released model serves best: scores of training patients under a classifier a model, as noisy histograms.

    Each of the plan's models gives `images` to train a classifier on; a trained model is chosen only when it is better
    than the spectral one by more than the noise. See metrics/choice.py.
    """

    kind: Literal["choice"]
    noise_multiplier: Positive
    bins: Annotated[int, Field(ge=4, le=64)] = 16
    images: Annotated[int, Field(ge=50, le=20_000)] = 1000

    @property
    def rounds(self) -> int:
        """One exchange."""
        return 1


OneShotStage = SpectralStage | EmbeddingStage | ChoiceStage
AnyStage = SpectralStage | EmbeddingStage | GanStage | FlowStage | ChoiceStage
Stage = Annotated[AnyStage, Field(discriminator="kind")]
ModelKind = Literal["spectral", "embedding", "gan", "flow"]
StageKind = Literal["spectral", "embedding", "gan", "flow", "choice"]
