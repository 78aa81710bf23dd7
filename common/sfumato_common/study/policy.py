"""A site's own policy: what this hospital allows, whatever a plan says. The coordinator never sees or edits it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sfumato_common.generators.settings import Positive
from sfumato_common.strict import Strict
from sfumato_common.study.gate_rules import GateRules
from sfumato_common.study.plan import Count, Name
from sfumato_common.study.stages import StageKind
from sfumato_common.study.words import Method, Part, TableMethod

# Long enough to hide a round of the shipped plans behind a few intervals, short beside Flower's own polling (3 s).
DEFAULT_ANSWER_INTERVAL_S = 2.0


class Budget(Strict):
    """The most a patient of this site may ever be charged, over all studies together."""

    epsilon: Positive
    """The largest epsilon of a patient, over all studies and tables together."""
    delta: Annotated[float, Field(gt=0, lt=0.01)]
    """The delta that goes with it."""


class ReviewRules(Strict):
    """Who lets a release go once the gate has passed it: policy alone, or stewards, people of this site with keys.

    `auto`: policy alone. `formal-auto`: a steward decides on declared parts; formal ones pass by their proof.
    `steward`: on every part. With `two_persons` a part needs the yes of two stewards; one no refuses it.
    `queue`: whether the coordinator is told that a release waits for a person; withheld, it looks like work.
    """

    by: Literal["auto", "formal-auto", "steward"] = "auto"
    """Policy alone, a steward on declared parts, or a steward on every part."""
    two_persons: bool = False
    """Two stewards have to say yes."""
    queue: Literal["withheld", "told"] = "withheld"
    """Whether the coordinator is told that a release waits for people."""

    @property
    def persons(self) -> int:
        """How many stewards must say yes."""
        return 2 if self.two_persons else 1

    def asks(self, part: Part) -> bool:
        """Whether a part of a release waits for stewards."""
        return self.by == "steward" or (self.by == "formal-auto" and part == "declared")


class ReleaseRules(Strict):
    """What may be released: method names, the largest number of images in a study, groups of patients, and the gate.

    `smallest_group` is the least k of a method on groups. `regroup`: whether patients who were grouped once may be
    grouped otherwise, or after some came or went: who is in one release and not in the other shows by subtraction.
    `review`: who approves what the gate let pass.
    """

    allowed_methods: list[Method | TableMethod]
    """Methods that plans and tables may use here."""
    largest_set: Count
    """The most images of a study."""
    smallest_group: Annotated[int, Field(ge=2, le=1000)] = 5
    """The least k of a method on groups."""
    regroup: Literal["refused", "allowed"] = "refused"
    """Whether patients may be grouped again otherwise, which shows by subtraction who is in one grouping alone."""
    gate: GateRules = GateRules()
    """When a set of candidates is refused."""
    review: ReviewRules = ReviewRules()
    """Who lets go what the gate let pass."""


class Policy(Strict):
    """Everything a site insists on. A plan that asks for more is refused before any data is touched."""

    site: Name
    """This site's own name: in its plans, unless `name` hides it."""
    name: Literal["shown", "pseudonym", "pseudonym-per-study"] = "shown"
    """What others read: this name, or random letters with keys of their own, one in all studies or one a study."""
    budget: Budget
    """The most that a patient of this site may ever be charged."""
    allowed_stages: list[StageKind]
    """Kinds of stages that may be computed here."""
    minimum_patients: Annotated[int, Field(ge=2)]
    """The least number of training patients that `accept` asks for."""
    minimum_slack: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The share of patients more that `accept` asks for: afterwards nothing hangs on their number; some may leave."""
    release: ReleaseRules
    """What may be released, and what stands before it."""
    nonprivate_studies: Annotated[list[Name], Field(default_factory=list)]
    """Studies, by name, that may train here without differential privacy; for research on data that may be shown."""
    labels: Literal["private", "public"] = "private"
    """`public`: images may carry the labels of their records as they are, where a plan asks for it."""
    encoders: Annotated[str, Field(min_length=1)] = "encoders"
    """Where the files of given encoders stand: a folder, absolute or below the home folder."""
    utility_figure: Literal["withheld", "noised"] = "withheld"
    """Whether holdout patients' noised scores may leave; they are charged."""
    site_total: Literal["withheld", "published"] = "withheld"
    """Whether what a patient has paid here in all, over every study and table, may stand in a release's certificate."""
    secure_sum: Literal["refused", "allowed"] = "refused"
    """Under a plan's `secure_sum` what is charged counts on the noise of other sites: whether it may here."""
    withdrawals: Literal["withheld", "told"] = "withheld"
    """Whether a later version of a set may say, beside this site's name, that a patient of it withdrew."""
    noise: Literal["secure", "test"] = "secure"
    """`secure`: from the operating system's randomness. `test`: reproducible, for tests alone, and no guarantee."""
    progress: Literal["withheld", "shown"] = "withheld"
    """Whether the node may tell the step of a round or release under way, on the grid of answers."""
    answer_interval_s: Annotated[float, Field(ge=0, le=3600)] = DEFAULT_ANSWER_INTERVAL_S
    """Answers leave at whole multiples of so many seconds after the question."""

    @model_validator(mode="after")
    def _apart(self) -> Policy:
        if self.name == "pseudonym-per-study" and self.site_total == "published":
            raise ValueError(
                "site_total: 'published' tells one study what the site's others cost, and 'name: pseudonym-per-study' "
                "is to keep them apart; leave one of them out"
            )
        return self
