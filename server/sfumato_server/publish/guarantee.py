"""What each site's certificate says its release cost, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sfumato_common.accounting.events import Cohort
from sfumato_common.study.certificate import Certificate

MECHANISMS = {
    "GaussianRelease": "Gaussian mechanism on all patients at once",
    "SummedGaussian": "Gaussian mechanism on the sum over sites, of which this site added a part of the noise",
    "SampledGaussian": "DP-SGD: Gaussian mechanism on a Poisson sample of the patients",
    "LaplaceRelease": "Laplace mechanism on all patients at once",
    "RandomisedResponse": "randomised response on a category",
    "KAverageGaussian": "averages of k patients' codes, with Gaussian noise",
    "LocalLaplace": "one record a patient, clipped and noised on its own: Laplace mechanism",
    "LocalGaussian": "one record a patient, clipped and noised on its own: Gaussian mechanism",
    "ExponentialMechanism": "exponential mechanism",
    "AboveThreshold": "sparse vector: first query above a threshold",
    "Unprotected": "none: left without differential privacy",
}
COHORTS: dict[Cohort, str] = {"train": "training patients", "holdout": "holdout patients"}


@dataclass(frozen=True)
class MechanismLine:
    """One mechanism for one cohort: what it is and its public parameters."""

    cohort: str
    mechanism: str
    parameters: str


@dataclass(frozen=True)
class Guarantee:
    """What the sites in `sites` state alike."""

    sites: tuple[str, ...]
    certificate: Certificate
    lines: tuple[MechanismLine, ...]

    @property
    def formal(self) -> bool:
        """Whether there is any guarantee at all."""
        return self.certificate.formal


@dataclass(frozen=True)
class PooledCost:
    """What the pooled set costs a patient: of one site, and of the two dearest sites (None where there is one site).

    Infinite where something left without differential privacy.
    """

    who: str
    add_remove: float
    replace_one: float
    delta: float


def pooled_costs(stated: Sequence[Guarantee]) -> list[PooledCost]:
    """Sites compose in parallel for disjoint patients (the largest); a patient known to two of them pays the sum.

    Basic composition (Dwork and Roth 2014, theorem 3.16): epsilons add and deltas add. Where releases left as one sum,
    both contributions are under one noise, and such a patient pays what two do who come or go together (`pair`), which
    is a figure of adding and removing alone. Where models were given, what the study cost that trained them is added.
    """
    sites = [item.certificate for item in stated for _ in item.sites]
    paid = [with_training(site) for site in sites]
    dearest, replaced, deltas = (sorted(figures, reverse=True)[:2] for figures in zip(*paid, strict=True))
    who = "a patient of one site (the worst site's)"
    if trained := sorted({site.trained.plan_hash for site in sites if site.trained}):
        who += f", added to what the study cost that trained the given models (plan hash {trained[0]})"
    lines = [PooledCost(who, dearest[0], replaced[0], deltas[0])]
    if len(sites) > 1 and any(site.summed for site in sites):
        pairs = [_number(site.reach.pair) if site.reach else math.inf for site in sites]
        who = "a patient known to two sites, who moves the same sums twice (no figure for replace-one)"
        lines.append(PooledCost(who, max(pairs), math.inf, max(deltas)))
    elif len(sites) > 1:
        lines.append(
            PooledCost(
                "a patient known to two sites (the largest two, added)", sum(dearest), sum(replaced), sum(deltas)
            )
        )
    return lines


def with_training(site: Certificate) -> tuple[float, float, float]:
    """Epsilon under both adjacencies, and delta, of a patient who was in the earlier study too, where there is one."""
    own, earlier = site.epsilon.patient, site.trained
    if earlier is None:
        return _number(own.add_remove), _number(own.replace_one), site.delta
    before = earlier.epsilon.patient
    added, replaced = _number(before.add_remove), _number(before.replace_one)
    return _number(own.add_remove) + added, _number(own.replace_one) + replaced, site.delta + earlier.delta


def _number(stated: float | None) -> float:
    return math.inf if stated is None else stated


def guarantees(certificates: Mapping[str, Certificate]) -> list[Guarantee]:
    """Sites grouped by what their certificates state, in the order of their names."""
    groups: list[tuple[Certificate, list[str]]] = []
    for site in sorted(certificates):
        stated = certificates[site]
        for known, sites in groups:
            if known == stated:
                sites.append(site)
                break
        else:
            groups.append((stated, [site]))
    return [_guarantee(tuple(sites), stated) for stated, sites in groups]


def _guarantee(sites: tuple[str, ...], certificate: Certificate) -> Guarantee:
    lines = [
        MechanismLine(who, _mechanism(fields), _parameters(fields))
        for cohort, who in COHORTS.items()
        for fields in certificate.mechanisms.get(cohort, [])
    ]
    return Guarantee(sites, certificate, tuple(lines))


def _mechanism(fields: Mapping[str, Any]) -> str:
    name = str(fields.get("mechanism", "unknown"))
    return MECHANISMS.get(name, name)


def _parameters(fields: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {value:g}" if isinstance(value, int | float) else f"{name.replace('_', ' ')} {value}"
        for name, value in sorted(fields.items())
        if name != "mechanism"
    )
