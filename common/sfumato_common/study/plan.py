"""The study plan: what the coordinator proposes and every site checks, pins by hash and carries out exactly.

Every number in it is public. Nothing in it may be derived from a site's data: cohort sizes are nominal (agreed on
paper), sampling rates and denominators come from here and never from a data set's length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from sfumato_common.encoders.settings import EncoderName, EncoderTerms, check_encoders, pin_built_in
from sfumato_common.exchanges.choice import ChoiceStage
from sfumato_common.generators import GENERATORS
from sfumato_common.generators.appearance import APPEARANCE
from sfumato_common.generators.codec import CODEC
from sfumato_common.generators.settings import MomentsStage, Positive, PublicStart, stage_of, white_form
from sfumato_common.generators.spectral import SPECTRAL
from sfumato_common.generators.spectral.settings import SpectralStage
from sfumato_common.study.balance import check_balance
from sfumato_common.study.joining import Identified, check_joining
from sfumato_common.study.lineage import Lineage, check_lineage
from sfumato_common.study.private import check_delta, check_private
from sfumato_common.study.publication import PublicationTerms
from sfumato_common.study.release import AnyItem, DpKAverage, Filling, Grouped, Latent, ReleaseItem, Sampling
from sfumato_common.study.stages import Stage, StageKind
from sfumato_common.study.summed import check_secure_sum
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
# models of moments, one of which every plan begins with
BASES = (SPECTRAL.kind, APPEARANCE.kind, CODEC.kind)
Count = Annotated[int, Field(ge=1, le=10_000_000)]


class Plan(Identified):
    """A whole study. `digest` is its identity: sha256 over the canonical JSON of the resolved values."""

    study: Name
    image: ImageForm
    # for the headers of DICOM objects alone; left out of the digest where it is not said
    shows: Shown | None = Field(default=None, exclude_if=lambda shown: shown is None)
    labels: Annotated[list[Name], Field(min_length=2, max_length=64)]
    sites: Annotated[dict[Name, SiteTerms], Field(max_length=256)]
    # sites may join while the study runs, and each accepts the plan without the others' entries; see study/joining.py
    joining: Literal["later"] | None = Field(default=None, exclude_if=lambda when: when is None)
    # False: for research only. No noise is added and no gradient is clipped, every epsilon is infinite, whatever
    # `privacy` says; a site takes part only where its policy names the study
    private: bool = True
    privacy: PrivacyTerms
    # shares of the privacy budget by stage, from which noise multipliers were computed; see study/budget.py
    budget: dict[StageKind, Positive] | Literal["auto"] | None = None
    # frozen public networks that stages and methods name; the record of one that is built in is written here by itself
    encoders: dict[EncoderName, EncoderTerms] = Field(default_factory=dict, exclude_if=lambda given: not given)
    stages: Annotated[list[Stage], Field(min_length=1, max_length=8)]
    release: Annotated[list[ReleaseItem], Field(min_length=1, max_length=8)]
    utility: UtilityTerms | None = None
    # left out of the digest where there is none: plans from before it keep theirs
    formal_gate: FormalGate | None = Field(default=None, exclude_if=lambda gate: gate is None)
    secure_sum: SecureSumTerms | None = Field(default=None, exclude_if=lambda terms: terms is None)
    # the share of each label in the published set: a draw among signed images, see study/balance.py
    balance: dict[Name, Positive] | None = Field(default=None, exclude_if=lambda shares: shares is None)
    # whether images that nearly equal another are published too; without a word they are left out (pool/near.py)
    near_duplicates: Literal["stay"] | None = Field(default=None, exclude_if=lambda said: said is None)
    # a later version of a published set: what it takes over from earlier ones; see study/lineage.py
    lineage: Lineage | None = Field(default=None, exclude_if=lambda lineage: lineage is None)
    federation: FederationTerms
    # what the published set's cards say in the consortium's name
    publication: PublicationTerms | None = Field(default=None, exclude_if=lambda terms: terms is None)

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
        kinds = [stage.kind for stage in self.stages]
        if twice := [kind for kind in kinds if kinds.count(kind) > 1]:
            raise ValueError(f"stage '{twice[0]}' is there more than once; each kind may occur once, remove the others")
        if kinds[0] not in BASES:
            raise ValueError("the first stage must be 'spectral', 'appearance' or 'codec': the others start from it")
        models = [stage for stage in self.stages[1:] if stage.kind in GENERATORS]
        if needy := [stage.kind for stage in models if kinds[0] not in stage.goes_on_from]:
            raise ValueError(f"'{needy[0]}' starts from the spectral model: the first stage must be 'spectral'")
        self._check_release(kinds)
        check_encoders(self.encoders, [*self.stages, *self.release])
        for stage in self.stages:
            stage.check(self)
        if self.has_best and not self.chooses:
            raise ValueError("release of 'best' needs a 'choice' stage")
        check_private(self)
        check_delta(self)
        check_joining(self)
        check_secure_sum(self)
        check_lineage(self)
        check_balance(self)
        if self.federation.quorum > len(self.sites) > 0 and not self.joining:
            raise ValueError("federation.quorum is larger than the number of sites")
        if few := [stage for stage in self.stages if stage.fewest_replies > self.federation.quorum]:
            raise ValueError(
                f"'trimmed' of stage '{few[0].kind}' leaves nothing of a round of {self.federation.quorum} sites: "
                f"federation.quorum must be at least {few[0].fewest_replies}"
            )
        return self

    def _check_release(self, kinds: Sequence[str]) -> None:
        if missing := [item.model for item in self.release if item.model not in kinds and item.model != "best"]:
            raise ValueError(f"release asks for model '{missing[0]}', which no stage trains")
        sampled = [item.model for item in self.release if isinstance(item, Sampling)]
        if "best" in sampled and len(sampled) > 1:
            raise ValueError("'best' is one of the models that stages make: sample from it alone, or from named ones")
        if len({(item.method, item.model) for item in self.release}) != len(self.release):
            raise ValueError("each model may be released once by a method; add the counts")
        if len({item.grouping for item in self.release if isinstance(item, Grouped)}) > 1:
            raise ValueError(
                "patients are grouped once a study: give all methods on groups the same k, groups, least_labels, "
                "remainder, distance and views, or what two groupings share would tell who is in them"
            )
        for item in self.release:
            self._check_item(item)
        if self.formal_gate is not None and "formal" not in self.parts:
            raise ValueError("'formal_gate' judges formal images, and the release has none; remove it")

    def _check_item(self, item: AnyItem) -> None:
        if unknown := sorted(set(item.images_at) - set(self.sites)):
            raise ValueError(f"'images_at' of '{item.method}' names '{unknown[0]}', which is none of the plan's sites")
        self._check_filled(item)
        if isinstance(item, Grouped) and item.groups == "l-diverse" and item.least_labels > len(self.labels):
            raise ValueError(f"'least_labels' of '{item.method}' is larger than the number of labels")
        if isinstance(item, DpKAverage) and not self.private:
            raise ValueError(f"'{item.method}' is a formal method: under 'private: false' its model has no guarantee")
        if isinstance(item, Latent):
            every = white_form(self).numbers
            if item.coordinates is not None and item.coordinates > every:
                raise ValueError(f"'coordinates' of '{item.method}' are more than a latent's {every}")
            if over := [site for site, terms in self.sites.items() if item.at(site) > terms.nominal_patients]:
                raise ValueError(
                    f"'{item.method}' releases one image a patient at most: ask '{over[0]}' for no more than its "
                    f"{self.sites[over[0]].nominal_patients} nominal patients, by 'images_at'"
                )

    def _check_filled(self, item: AnyItem) -> None:
        if not isinstance(item, Grouped):
            return
        if unknown := sorted(set(item.filled_at) - set(self.sites)):
            raise ValueError(f"'filled_at' of '{item.method}' names '{unknown[0]}', which is none of the plan's sites")
        if bare := [site for site in self.sites if self.filled(item, site) >= item.at(site)]:
            raise ValueError(
                f"'filled_at' of '{item.method}' leaves no image from a group at '{bare[0]}'; fill fewer places there"
            )

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
