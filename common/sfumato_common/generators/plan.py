"""What may be known of a plan on the floors below it: no more than generators need, and all of it public."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from sfumato_common.encoders.settings import EncoderTerms


class PublicImage(Protocol):
    """Form of a study's images."""

    @property
    def size(self) -> int:
        """Pixels a side."""
        ...

    @property
    def channels(self) -> int:
        """1 or 3."""
        ...

    @property
    def bits(self) -> int:
        """8 or 16 a value."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image on disk: [S, S] or [S, S, 3]."""
        ...


class PublicSite(Protocol):
    """What the consortium agreed about one site."""

    @property
    def nominal_patients(self) -> int:
        """Agreed on paper, never counted."""
        ...


class PublicSpectral(Protocol):
    """The numbers of a plan's spectral stage, which trained ones start from; see its settings."""

    @property
    def bandwidth(self) -> int:
        """DCT coefficients a side."""
        ...

    @property
    def clip_radius(self) -> float:
        """Of features."""
        ...

    @property
    def spread_radius(self) -> float:
        """Of features about their mean."""
        ...

    @property
    def noise_multiplier(self) -> float:
        """Of the whole release."""
        ...

    @property
    def by_site(self) -> bool:
        """Whether every site has components of its own."""
        ...

    @property
    def radii(self) -> str:
        """Fixed or charged."""
        ...


class PublicStage(Protocol):
    """A stage; `settings.stage_of` gives it with all its numbers."""

    @property
    def kind(self) -> str:
        """Under which it stands in plans."""
        ...


class PublicPlan(Protocol):
    """A study's plan; `study.plan.Plan` is one."""

    @property
    def image(self) -> PublicImage:
        """Form of the images."""
        ...

    @property
    def labels(self) -> Sequence[str]:
        """The classes."""
        ...

    @property
    def sites(self) -> Mapping[str, PublicSite]:
        """Sites by name."""
        ...

    @property
    def encoders(self) -> Mapping[str, EncoderTerms]:
        """Given encoders by name."""
        ...

    @property
    def private(self) -> bool:
        """False: no noise is added, for research only."""
        ...

    @property
    def stages(self) -> Sequence[PublicStage]:
        """In their order."""
        ...

    @property
    def base(self) -> str:
        """Kind of the first stage, which releases the components' shares."""
        ...

    @property
    def by_site(self) -> bool:
        """Whether every site has components of its own."""
        ...

    @property
    def spectral(self) -> PublicSpectral:
        """The spectral stage. Raises KeyError where the plan begins with another."""
        ...

    @property
    def candidates(self) -> Sequence[str]:
        """Kinds of the generators among the stages, in their order."""
        ...

    @property
    def study_digest(self) -> str:
        """What all parties share, lower-case hexadecimal sha256."""
        ...

    @property
    def drawn_from(self) -> str:
        """Where public draws begin, lower-case hexadecimal sha256: the `study_digest` of the study that trained."""
        ...
