"""What a GAN stage states, and what it shares with every stage that trains the same generator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import DpSgdStage, StageSettings


class GeneratorStage(StageSettings):
    """A stage at whose end there is a generator with a W space, `width` channels wide at full resolution."""

    if TYPE_CHECKING:

        @property
        def width(self) -> int:
            """Channels at full resolution."""
            ...

    def check(self, plan: PublicPlan) -> None:
        """A plan has one form of generator."""
        if any(stage.width != self.width for stage in plan.stages if isinstance(stage, GeneratorStage)):
            raise ValueError("the embedding and gan stages train one form of generator: give both the same width")


class GanStage(DpSgdStage, GeneratorStage):
    """Generator with a W space and a discriminator without coupled records; only the latter sees real images (DP-SGD).

    `discriminators: per-site` keeps one for every site, and the generator learns from all of them. `generator_start`
    says which earlier stage the generator begins at: it returns spectral samples, or what the embedding stage fitted.
    """

    kind: Literal["gan"]
    """A generator, whose discriminators learn by DP-SGD."""
    width: Annotated[int, Field(ge=8, le=256, multiple_of=8)] = 24
    """Channels of the generator at full resolution."""
    generator_steps: Annotated[int, Field(ge=1, le=100_000)] = 30
    """Generator steps of the coordinator a round."""
    fakes: Annotated[int, Field(ge=4, le=4096)] = 48
    """Generated images beside each batch."""
    discriminators: Literal["joint", "per-site"] = "joint"
    """One for all sites, or one a site."""
    generator_start: Literal["spectral", "embedding"] = "spectral"
    """Where the generator begins: the spectral model, or the embedding stage's generator."""

    def begins_at(self, network: str) -> str | None:
        """The generator may begin where the embedding stage left it; as it is drawn, it returns spectral samples."""
        fitted = network == "generator" and self.generator_start != "spectral"
        return self.generator_start if fitted else None

    def check(self, plan: PublicPlan) -> None:
        """What the generator begins at is there before it, and is one thing only; updates that meet are joined."""
        if self.discriminators == "per-site" and self.server.combine != "mean":
            raise ValueError("with 'discriminators: per-site' no updates are joined: leave 'server.combine' away")
        if self.generator_start != "spectral":
            kinds = [stage.kind for stage in plan.stages]
            if self.generator_start not in kinds[: kinds.index(self.kind)]:
                raise ValueError("generator_start 'embedding' needs an 'embedding' stage before 'gan'")
            if self.start is not None:
                raise ValueError(
                    "the gan stage has both a pinned start and 'generator_start: embedding': give one of them"
                )
        super().check(plan)
