"""The study plan: what the coordinator proposes and every site checks, pins by hash and carries out exactly.

Every number in it is public. Nothing in it may be derived from a site's data: cohort sizes are nominal (agreed on
paper), sampling rates and denominators come from here and never from a data set's length.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from sfumato_common.encoders.settings import EncoderName, EncoderTerms, pin_built_in
from sfumato_common.exchanges.choice import ChoiceStage
from sfumato_common.generators import GENERATORS
from sfumato_common.generators.settings import MomentsStage, Positive, PublicStart, stage_of
from sfumato_common.generators.spectral.settings import SpectralStage
from sfumato_common.study.coherence import check_plan
from sfumato_common.study.joining import Identified
from sfumato_common.study.lineage import Lineage
from sfumato_common.study.publication import PublicationTerms
from sfumato_common.study.release import AnyItem, Filling, Grouped, ReleaseItem
from sfumato_common.study.stages import Stage, StageKind
from sfumato_common.study.terms import (
    FederationTerms,
    FormalGate,
    ImageForm,
    PrivacyTerms,
    SecureSumTerms,
    Shown,
    SiteTerms,
    UtilityTerms,
)
from sfumato_common.study.words import PARTS, GuaranteeLevel, Part, fill_of, part_of

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
Count = Annotated[int, Field(ge=1, le=10_000_000)]


class Plan(Identified):
    """A whole study. `digest` is its identity: sha256 over the canonical JSON of the resolved values."""

    study: Name
    """Name of the study: small letters, digits and hyphens. A changed plan needs another name."""
    image: ImageForm
    """Form of the study's images."""
    # for the headers of DICOM objects alone; left out of the digest where it is not said
    shows: Shown | None = Field(default=None, exclude_if=lambda shown: shown is None)
    """What all images show, in DICOM's own words; written into the headers of DICOM objects alone."""
    labels: Annotated[list[Name], Field(min_length=2, max_length=64)]
    """Names of the labels, in their order."""
    sites: Annotated[dict[Name, SiteTerms], Field(max_length=256)]
    """The sites by name, and what was agreed about each."""
    joining: Literal["later"] | None = Field(default=None, exclude_if=lambda when: when is None)
    """`later`: sites may join while the study runs, and each accepts the plan without the others' entries."""
    private: bool = True
    """`false`: for research only. No noise is added, every epsilon is infinite, and policies have to name the study."""
    privacy: PrivacyTerms
    """The most that the whole study may cost a patient."""
    budget: dict[StageKind, Positive] | Literal["auto"] | None = None
    """Shares of the budget by stage, of which noise multipliers are computed; or `auto`, a rule over public numbers."""
    encoders: dict[EncoderName, EncoderTerms] = Field(default_factory=dict, exclude_if=lambda given: not given)
    """Frozen public networks that stages and methods name; the record of a built-in one is written here by itself."""
    stages: Annotated[list[Stage], Field(min_length=1, max_length=8)]
    """What is trained or released, in its order; each kind may occur once."""
    release: Annotated[list[ReleaseItem], Field(min_length=1, max_length=8)]
    """What every site is asked to release: one item a method and model."""
    utility: UtilityTerms | None = None
    """The published figure: noised scores of holdout patients. Left out, nobody asks for it."""
    # left out of the digest where there is none: plans from before it keep theirs
    formal_gate: FormalGate | None = Field(default=None, exclude_if=lambda gate: gate is None)
    """A private gate before the formal images; it is noised and charged."""
    secure_sum: SecureSumTerms | None = Field(default=None, exclude_if=lambda terms: terms is None)
    """One-shot releases reach the coordinator as sums over sites alone."""
    balance: dict[Name, Positive] | None = Field(default=None, exclude_if=lambda shares: shares is None)
    """The share of each label in the published set: a draw among signed images."""
    near_duplicates: Literal["stay"] | None = Field(default=None, exclude_if=lambda said: said is None)
    """`stay`: images that nearly equal another are published too; left out, they are not."""
    lineage: Lineage | None = Field(default=None, exclude_if=lambda lineage: lineage is None)
    """Of a later version of a set: what it takes over from earlier ones. `sfumato study rerelease` writes it."""
    federation: FederationTerms
    """When a round counts, and how long it waits."""
    publication: PublicationTerms | None = Field(default=None, exclude_if=lambda terms: terms is None)
    """What the published set's cards say in the consortium's name."""

    @model_validator(mode="before")
    @classmethod
    def _pinned(cls, value: Any) -> Any:
        return pin_built_in(value)

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: list[str]) -> list[str]:
        if len(set(labels)) != len(labels):
            raise ValueError("labels must differ from each other")
        return labels

    @model_validator(mode="after")
    def _coherent(self) -> Plan:
        check_plan(self)
        return self

    def stage(self, kind: str) -> Stage:
        """The stage of that kind. Raises KeyError when the plan has none."""
        for stage in self.stages:
            if stage.kind == kind:
                return stage
        raise KeyError(kind)

    @property
    def chooses(self) -> bool:
        """Whether a choice stage says which model serves best."""
        return isinstance(self.stages[-1], ChoiceStage)

    @property
    def candidates(self) -> list[str]:
        """The models that stages make, in their order, the one that it begins with first: what 'best' can mean."""
        return [stage.kind for stage in self.stages if stage.kind in GENERATORS]

    @property
    def public_starts(self) -> dict[str, PublicStart]:
        """Every pinned start by stage kind."""
        return {stage.kind: stage.public_start for stage in self.stages if stage.public_start is not None}

    @property
    def choices(self) -> list[str]:
        """What a release request may choose: one of the candidates where `release` says 'best', otherwise nothing."""
        return [*self.candidates] if self.has_best else [""]

    def release_at(self, site: str, choice: str) -> list[AnyItem]:
        """The release at `site`, each item with its number of images there and 'best' under its real name, `choice`.

        Places that lack a group are an item of their own, behind the one that they belong to.
        """
        assert choice in self.choices
        items: list[AnyItem] = []
        for item in self.release:
            named = {"model": choice} if item.model == "best" else {}
            own = {"images": item.at(site) - self.filled(item, site), "images_at": {}, **named}
            items += [item.model_copy(update=own), *self._fillings(item, site)]
        return items

    def filled(self, item: AnyItem, site: str) -> int:
        """How many places of `item` lack a group at `site`, as the plan says, and are drawn from its model."""
        return item.filled_at.get(site, 0) if isinstance(item, Grouped) else 0

    def _fillings(self, item: AnyItem, *sites: str) -> list[Filling]:
        """DP sampling for the places of `item` that lack a group: an item where `sites`, or any at all, have some."""
        filled = sum(self.filled(item, site) for site in sites or self.sites)
        return [Filling(method=fill_of(item.method), model=item.model, images=filled)] if filled else []

    @property
    def drawn_from(self) -> str:
        """Where public draws begin, of networks, directions and features: the digest of the study that trained."""
        return (self.lineage.trained if self.lineage else None) or self.study_digest

    @property
    def has_best(self) -> bool:
        """Whether the release leaves a model to the choice stage."""
        return any(item.model == "best" for item in self.release)

    @property
    def sources(self) -> list[tuple[str, str]]:
        """(method, model) of all that may be released, in the release's order; 'best' may be any candidate."""
        return list(self.guarantee_levels)

    def guarantee_level(self, item: AnyItem) -> GuaranteeLevel:
        """The guarantee level of `item`'s images: never more than that of the models that they come from."""
        return item.guarantee_level if self.private else "heuristic"

    @property
    def parts(self) -> list[Part]:
        """The parts that the release has at any site: each is judged, sealed and sent by itself."""
        own = {part for site in self.sites for part in self.parts_at(site)}
        return [part for part in PARTS if part in own]

    def parts_at(self, site: str) -> list[Part]:
        """The parts that the release has at `site`."""
        own = {part_of(self.guarantee_level(item)) for item in self.release_at(site, self.choices[0])}
        return [part for part in PARTS if part in own]

    def part_at(self, site: str, choice: str, part: Part) -> list[AnyItem]:
        """The items of one part of `release_at`."""
        return [item for item in self.release_at(site, choice) if part_of(self.guarantee_level(item)) == part]

    @property
    def guarantee_levels(self) -> dict[tuple[str, str], GuaranteeLevel]:
        """The guarantee level by method and model of all that may be released; 'best' may be any candidate."""
        return {
            (item.method, model): self.guarantee_level(item)
            for item in [found for own in self.release for found in (own, *self._fillings(own))]
            for model in (self.candidates if item.model == "best" else [item.model])
        }

    @property
    def base(self) -> StageKind:
        """Kind of the first stage, which releases the components' shares."""
        return self.stages[0].kind

    @property
    def by_site(self) -> bool:
        """Whether every site has components of its own."""
        first = self.stages[0]
        assert isinstance(first, MomentsStage), "a plan begins with a model of moments"
        return first.by_site

    @property
    def spectral(self) -> SpectralStage:
        """The spectral stage. Raises KeyError where the plan begins with another."""
        return stage_of(self, SpectralStage)
