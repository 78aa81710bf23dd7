"""The gate's rules as tables: what is compared, with which limit. Each is a comparison with holdout real images.

A patient who was held out cannot have been copied, so holdout images show how near an honest image comes by chance.
Every candidate set is put to `RULES`, and one that was made from records to `RECORD_RULES` as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from sfumato_client.audit.attacks.identity import Matches
from sfumato_common.metrics.nearest import Floats
from sfumato_common.study.gate_rules import GateRules

# Public constants, chosen once on public radiographs, never on a site's data: a copy with noise of sd 0.02 stays under
# 0.045 (correlation 0.999); the nearest holdout pair in three chest X-ray sets was at 0.166.
IDENTICAL = 0.05
LOW_QUANTILE = 0.05
FEWEST_CONTROLS = 5
# A candidate is recognised when its best match is above what holdout images exceed in one case of 20.
IDENTITY_LEVEL = 0.05
# A set of strangers is refused once in a hundred at most, whatever its size and that of the control.
IDENTITY_CONFIDENCE = 0.99

Measured = TypeVar("Measured", "Distances", Matches)


@dataclass(frozen=True)
class Distances:
    """Nearest-training-image distances of one candidate set [N] and of the holdout images [M]."""

    candidates: Floats
    control: Floats

    @property
    def usual_least(self) -> float:
        """How near holdout images come: their 5% quantile, rounded up to an image.

        The rounding keeps a single near-duplicate among few holdout images from setting the limit.
        """
        return float(np.quantile(self.control, LOW_QUANTILE, method="higher"))


@dataclass(frozen=True)
class Rule(Generic[Measured]):
    """One line of a table: `measure` of a set must be at most, or at least, `limit`."""

    name: str
    compares: str
    measure: Callable[[Measured, GateRules], float]
    bound: Literal["at most", "at least"]
    limit: Callable[[Measured, GateRules], float]
    advice: str


@dataclass(frozen=True)
class Finding:
    """What a rule found in the candidate set `of` (method and model), and what to change where it is not passed."""

    of: str
    rule: str
    compares: str
    value: float
    bound: str
    limit: float
    advice: str = ""

    @property
    def passed(self) -> bool:
        """False also for a value that is not a number: a check that cannot be made is not passed."""
        return self.value <= self.limit if self.bound == "at most" else self.value >= self.limit

    def to_json(self) -> dict[str, Any]:
        """For the site's local report."""
        return {**self.__dict__, "passed": self.passed}


def _copies(distances: Distances, rules: GateRules) -> float:
    return float((distances.candidates < rules.relative_distance_floor * distances.usual_least).mean())


def _identical(distances: Distances, rules: GateRules) -> float:
    del rules
    return float((distances.candidates < IDENTICAL).sum())


def _median(distances: Distances, rules: GateRules) -> float:
    del rules
    return float(np.median(distances.candidates) / np.median(distances.control))


def _recognition(matches: Matches, rules: GateRules) -> float:
    del rules
    return matches.share(IDENTITY_LEVEL)


def _highest_recognition(matches: Matches, rules: GateRules) -> float:
    return max(rules.identity_share_limit, matches.share_by_chance(IDENTITY_LEVEL, IDENTITY_CONFIDENCE))


RULES: tuple[Rule[Distances], ...] = (
    Rule(
        "copies",
        "share of candidates nearer to a training image than relative_distance_floor x the holdout 5% quantile",
        _copies,
        "at most",
        lambda distances, rules: rules.copy_share_limit,
        "images are too near to training images: fewer training steps, more noise, or larger groups",
    ),
    Rule(
        "identical",
        f"candidates within {IDENTICAL} of a training image",
        _identical,
        "at most",
        lambda distances, rules: 0.0,
        "a training image came back: the model has learnt it by heart; more noise, or fewer training steps",
    ),
    Rule(
        "median",
        "median distance of the candidates relative to that of the holdout images",
        _median,
        "at least",
        lambda distances, rules: rules.relative_distance_floor,
        "the whole set hugs training images: fewer training steps, more noise, or larger groups",
    ),
)


RECORD_RULES: tuple[Rule[Matches], ...] = (
    Rule(
        "identity",
        "share of candidates matched to a training patient better than 95 % of the holdout images are",
        _recognition,
        "at most",
        _highest_recognition,
        "training patients are recognised: larger groups, more noise, or a method that is formal",
    ),
)


def apply(of: str, distances: Distances, rules: GateRules) -> list[Finding]:
    """Every rule for every set, on one candidate set."""
    return _find(RULES, of, distances, rules)


def apply_to_records(of: str, matches: Matches, rules: GateRules) -> list[Finding]:
    """Every rule for sets that were made from records, on one of them."""
    return _find(RECORD_RULES, of, matches, rules)


def _find(table: Sequence[Rule[Measured]], of: str, measured: Measured, rules: GateRules) -> list[Finding]:
    return [
        Finding(
            of,
            rule.name,
            rule.compares,
            rule.measure(measured, rules),
            rule.bound,
            rule.limit(measured, rules),
            rule.advice,
        )
        for rule in table
    ]
