"""What each site's certificate says its release cost, in words; a certificate that cannot be read promises nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from sfumato_server.pool import Pool

MECHANISMS = {
    "GaussianRelease": "Gaussian mechanism on all patients at once",
    "SampledGaussian": "DP-SGD: Gaussian mechanism on a Poisson sample of the patients",
}
COHORTS = {"train": "training patients", "holdout": "held-out patients"}


class DeclaredLine(BaseModel):
    """A disclosure that no epsilon covers."""

    model_config = ConfigDict(strict=True)
    what: str
    bits: int


class Certificate(BaseModel):
    """The part of a site's ledger certificate that the report prints; epsilons at `delta`, add/remove of `unit`."""

    model_config = ConfigDict(strict=True)
    unit: str
    adjacency: str
    delta: float
    epsilon_train: float
    epsilon_holdout: float
    epsilon_patient: float
    mechanisms: dict[str, list[dict[str, Any]]]
    declared: list[DeclaredLine]
    noise: str
    covers: str

    @property
    def formal(self) -> bool:
        """Whether the noise was drawn so that the epsilons mean anything."""
        return self.noise == "secure"


@dataclass(frozen=True)
class MechanismLine:
    """One mechanism for one cohort: what it is and its public parameters."""

    cohort: str
    mechanism: str
    parameters: str


@dataclass(frozen=True)
class Guarantee:
    """What the sites in `sites` state alike; `certificate` is None where it could not be read."""

    sites: tuple[str, ...]
    certificate: Certificate | None
    lines: tuple[MechanismLine, ...]

    @property
    def formal(self) -> bool:
        """Whether there is any guarantee at all."""
        return self.certificate is not None and self.certificate.formal


def guarantees(pool: Pool) -> list[Guarantee]:
    """Sites grouped by what their certificates state, in the order of their names."""
    groups: list[tuple[Mapping[str, Any], list[str]]] = []
    for site in sorted(pool.certificates):
        stated = pool.certificates[site]
        for known, sites in groups:
            if known == stated:
                sites.append(site)
                break
        else:
            groups.append((stated, [site]))
    return [_guarantee(tuple(sites), stated) for stated, sites in groups]


def _guarantee(sites: tuple[str, ...], stated: Mapping[str, Any]) -> Guarantee:
    try:
        certificate = Certificate.model_validate(dict(stated))
    except ValidationError:
        return Guarantee(sites, None, ())
    lines = [
        MechanismLine(COHORTS.get(cohort, cohort), _mechanism(fields), _parameters(fields))
        # training patients first; a cohort that this version does not know is printed as it is
        for cohort in sorted(certificate.mechanisms, key=lambda name: (name not in COHORTS, name != "train", name))
        for fields in certificate.mechanisms[cohort]
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
