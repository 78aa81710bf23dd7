"""When a site's gate refuses candidates: part of its policy (`release.gate`), which the coordinator never sees."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from sfumato_common.encoders.settings import EncoderTerms
from sfumato_common.strict import Strict

Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
AttackName = Literal[
    "nearest-copy",
    "thumbnail",
    "embedding-copy",
    "domias",
    "trace",
    "attribute",
    "re-identification",
    "learned-pairs",
]
Statistic = Literal["auc", "found-at-0.01", "found-at-0.001", "stand-out"]


class AttackRule(Strict):
    """One attack, and the most that it may find of a set: `statistic` by the bound that decides, at most `limit`.

    `lower` refuses what is shown, `upper` what cannot be ruled out, `estimate` what is found. `stand-out` is the number
    of training patients whom nothing usual explains, and has no bounds. Where `underpowered` is `refused`, a set is
    refused that is judged on too few patients for the attack to tell an AUC of 0.6 from chance.
    """

    attack: AttackName
    """Which attack."""
    statistic: Statistic
    """Which of its figures is compared."""
    decides: Literal["lower", "estimate", "upper"] = "lower"
    """By which bound of the figure's interval."""
    limit: Annotated[float, Field(ge=0)]
    """The most that passes."""
    underpowered: Literal["told", "refused"] = "told"
    """What happens where too few patients are there to tell."""

    @model_validator(mode="after")
    def _limit_within(self) -> AttackRule:
        if self.statistic == "auc" and not 0.5 <= self.limit <= 1.0:
            raise ValueError("an AUC's limit is between 0.5, which is chance, and 1")
        if self.statistic.startswith("found") and self.limit > 1.0:
            raise ValueError("a true positive rate's limit is a share, at most 1")
        return self


# copies of one patient's fine structure stand out; a set that most training patients are told by is no anonymous one
FINE_COPIES = AttackRule(attack="nearest-copy", statistic="stand-out", limit=0.0)
FINE_MEMBERSHIP = AttackRule(attack="nearest-copy", statistic="auc", limit=0.75)

TOLD: tuple[AttackName, ...] = ("nearest-copy", "domias", "trace", "attribute")


class GateRules(Strict):
    """When the first gate refuses a set of candidates (see audit/rules.py for what is compared).

    `identity_share_limit` is for sets made from records: the largest share that an identity verifier may recognise. Of
    strangers it recognises 5 % by definition; the default is twice that, and where a small set of strangers passes
    a stricter limit by chance more than once in a hundred, what 99 % of such sets stay within. A given `encoder`, which
    is described as a plan describes its own, is a second verifier under the same limit; a plan whose methods compare
    images by its file is refused. `declare_verdict` allows the bit that this verdict is. Formal sets are let go
    whatever it says of others: with `formal: no-gate` by their proof alone, with `formal: private` only under plans
    that have a private gate (`formal_gate`).

    `attacks` are rules on what attacks find, `report` the attacks that are told in the steward's report besides. Of
    the candidates themselves: the largest shares that may show nothing, repeat one another, or are darker, brighter or
    flatter than any real image, and whether a text burned into one refuses the set.
    """

    relative_distance_floor: Annotated[float, Field(gt=0, le=1)] = 0.5
    """A candidate is suspicious when it is nearer to a training image than this share of what is usual."""
    copy_share_limit: Share = 0.02
    """The largest share of suspicious candidates."""
    identity_share_limit: Share = 0.10
    """The largest share of images made from records that an identity verifier may recognise."""
    declare_verdict: bool = False
    """Whether the verdict, one bit that no epsilon covers, may be declared."""
    encoder: EncoderTerms | None = None
    """A second verifier under the same limit, described as plans describe encoders."""
    formal: Literal["no-gate", "private"] = "no-gate"
    """Formal images are let go by their proof alone, or only under plans with a private gate."""
    attacks: list[AttackRule] = Field(default_factory=lambda: [FINE_COPIES, FINE_MEMBERSHIP])
    """Attacks that decide, and the most that each may find."""
    report: list[AttackName] = Field(default_factory=lambda: list(TOLD))
    """Attacks whose figures the steward's report has besides."""
    blank_share_limit: Share = 1.0
    """The largest share of candidates that show nothing."""
    repeat_share_limit: Share = 1.0
    """The largest share that repeat one another."""
    range_share_limit: Share = 1.0
    """The largest share that are darker, brighter, flatter or starker than real images."""
    text: Literal["not-read", "refused"] = "not-read"
    """`refused`: a text that is burned into an image refuses the set."""

    @field_validator("attacks")
    @classmethod
    def _each_once(cls, rules: list[AttackRule]) -> list[AttackRule]:
        keys = [(rule.attack, rule.statistic, rule.decides) for rule in rules]
        if len(set(keys)) < len(keys):
            raise ValueError("an attack's statistic and bound stand in one rule each")
        return rules

    @field_validator("report")
    @classmethod
    def _told_once(cls, names: list[AttackName]) -> list[AttackName]:
        if len(set(names)) < len(names):
            raise ValueError("an attack is named once")
        return names

    @property
    def tried(self) -> tuple[AttackName, ...]:
        """The attacks that a gate tries: those of rules, and those that are told besides."""
        return tuple(dict.fromkeys([*(rule.attack for rule in self.attacks), *self.report]))
