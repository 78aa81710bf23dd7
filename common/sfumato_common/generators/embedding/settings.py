"""What an embedding stage states."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sfumato_common.encoders.settings import EncoderName
from sfumato_common.generators.gan.settings import GeneratorStage
from sfumato_common.generators.settings import OneShotStage, Positive


class EmbeddingStage(OneShotStage, GeneratorStage):
    """One-shot class-conditional release of mean features (DCT, scattering, random Fourier); a generator is fitted.

    With an `encoder` its embedding stands in for scattering, as in DP-MEPF (Harder et al. 2023).
    """

    kind: Literal["embedding"]
    """Means of features, released once."""
    noise_multiplier: Positive
    """Noise of the release, over a sensitivity of 1; left out where the plan has a budget."""
    width: Annotated[int, Field(ge=8, le=256, multiple_of=8)] = 24
    """Channels of the generator at full resolution."""
    generator_steps: Annotated[int, Field(ge=1, le=100_000)] = 300
    """Steps by which the coordinator fits the generator."""
    # left out of a plan's digest where there is none: plans from before it keep theirs
    encoder: EncoderName | None = Field(default=None, exclude_if=lambda name: name is None)
    """A given encoder whose embedding stands in for scattering."""

    @property
    def encoder_names(self) -> tuple[str, ...]:
        """`encoder`."""
        return () if self.encoder is None else (self.encoder,)
