"""The attacks that a policy names, tried on every candidate set, and what its rules say of what they found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sfumato_client.anonymise.candidates import CandidateSet
from sfumato_client.audit.attacks import ATTACKS, AttackResult, Known, People, measure
from sfumato_client.audit.attacks.base import Indices
from sfumato_client.audit.rules import Finding
from sfumato_client.dataset import Cohort
from sfumato_common.encoders.encoder import Encoder
from sfumato_common.errors import DataError
from sfumato_common.metrics.nearest import is_flat
from sfumato_common.study.gate_rules import AttackRule, GateRules

# what to do about a set that an attack's rule refuses
_ADVICE = {
    "nearest-copy": "images repeat fine structure of patients: fewer training steps, more noise, or larger groups",
    "thumbnail": "images are as near to training patients as copies: fewer training steps, more noise, larger groups",
    "embedding-copy": "a public network takes images for training patients': more noise, or larger groups",
    "domias": "the release is dense where training patients are: fewer training steps, or more noise",
    "trace": "averages keep what single patients have of their own: larger groups, or a method that is formal",
    "attribute": "images carry findings of those whom they look like: labels apart from records, or more noise",
    "re-identification": "training patients are recognised: more noise, larger groups, or a method that is formal",
    "learned-pairs": "who is behind an image is found by who knows other groups: larger groups, or a formal method",
}


@dataclass(frozen=True)
class Untried:
    """An attack that is told besides and could not be tried on a set: a rule of it would have refused."""

    of: str
    attack: str
    reason: str


@dataclass(frozen=True)
class Tried:
    """What all attacks found of all sets, and those that could not be tried."""

    results: tuple[AttackResult, ...] = ()
    untried: tuple[Untried, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For the site's local report."""
        return {
            "attacks": [result.to_json() for result in self.results],
            "attacks_not_tried": [dict(untried.__dict__) for untried in self.untried],
        }


def try_attacks(
    sets: Sequence[CandidateSet],
    train: Cohort,
    holdout: Cohort,
    rules: GateRules,
    encoder: Encoder | None,
    behind: Mapping[str, Sequence[Indices]],
) -> Tried:
    """Every attack that `rules` name on every set; `behind` has, by a set's name, who is behind each of its images.

    Raises DataError where one that decides cannot be tried.
    """
    if not rules.tried:
        return Tried()
    members, strangers = people_of(train), people_of(holdout)
    deciding = {rule.attack for rule in rules.attacks}
    results, untried = [], []
    for item in sets:
        shows = ~is_flat(item.images)
        own = behind.get(item.name, ())
        kept = [own[row] for row in np.flatnonzero(shows).tolist()] if len(own) == len(item.images) else []
        known = Known(item.images[shows], item.labels[shows], kept, encoder)
        for name in rules.tried:
            attack = ATTACKS[name]
            obstacle = attack.obstacle(members, strangers, known)
            if obstacle and name not in deciding:
                untried.append(Untried(item.name, name, obstacle))
            else:
                results.append(measure(attack, item.name, members, strangers, known))
    return Tried(tuple(results), tuple(untried))


def people_of(cohort: Cohort) -> People:
    """A cohort's images that show something."""
    images, labels, patient_index = cohort.everything()
    shows = ~is_flat(images)
    if not shows.any():
        raise DataError("no image of a cohort shows anything: there is nobody to attack")
    return People(images[shows], patient_index[shows], labels[shows])


def apply_to_attacks(results: Sequence[AttackResult], rules: GateRules) -> list[Finding]:
    """Every rule on attacks, on what they found; fail-closed where a rule asks for power that there is not."""
    findings = []
    for result in results:
        for rule in rules.attacks:
            if rule.attack == result.name:
                findings.append(_finding(result, rule))
                if rule.underpowered == "refused":
                    findings.append(_power(result, rule))
    return findings


def _finding(result: AttackResult, rule: AttackRule) -> Finding:
    bound = "" if rule.statistic == "stand-out" else f", {rule.decides} bound of its 95 % interval"
    bound = ", as found" if bound and rule.decides == "estimate" else bound
    told = f" ({result.underpowered})" if result.underpowered else ""
    compares = f"{_SAID[rule.statistic]}{bound}: {result.question}{told}"
    value = statistic_of(result, rule)
    return Finding(
        result.of, f"{rule.attack}: {rule.statistic}", compares, value, "at most", rule.limit, _ADVICE[rule.attack]
    )


_SAID = {
    "auc": "area under the attack's curve",
    "found-at-0.01": "share of training patients found at one false alarm in a hundred",
    "found-at-0.001": "share of training patients found at one false alarm in a thousand",
    "stand-out": "training patients whom nothing usual explains",
}


def statistic_of(result: AttackResult, rule: AttackRule) -> float:
    """The number that a rule compares."""
    if rule.statistic == "stand-out":
        return float(result.stand_out)
    if rule.statistic == "auc":
        estimate, (low, high) = result.auc, result.auc_interval
    else:
        estimate, (low, high) = result.found_at[float(rule.statistic.removeprefix("found-at-"))]
    return {"lower": low, "estimate": estimate, "upper": high}[rule.decides]


def _power(result: AttackResult, rule: AttackRule) -> Finding:
    """1 where there are too few patients, which refuses."""
    return Finding(
        result.of,
        f"{rule.attack}: power",
        result.underpowered or "an AUC of 0.6 would be told from chance",
        float(bool(result.underpowered)),
        "at most",
        0.0,
        "the cohorts are too small for this rule: more holdout patients, or 'underpowered: told'",
    )
