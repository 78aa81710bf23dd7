"""`sfumato-site check`: everything that can be wrong at a site, looked at in one go; one line a look in `CHECKS`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sfumato_client.site.checks import images, machine, network, quality, standing, study
from sfumato_client.site.checks.finding import Check, Finding, State, Subject
from sfumato_common.errors import SfumatoError

CHECKS: Mapping[str, Check] = {
    "policy": standing.policy,
    "keys": standing.keys,
    "certificate": standing.certificate,
    "ledger": standing.ledger,
    "memory": machine.memory,
    "disk": machine.disk,
    "locks": machine.locks,
    "ports": machine.ports,
    "readers": machine.readers,
    "clock": machine.clock,
    "coordinator": network.coordinator,
    "plan": study.plan,
    "models": study.models,
    "images": images.source,
    "store": images.store,
    "cohorts": images.cohorts,
    "patients": study.nominal,
    "quality": quality.quality,
}
_OF_A_PLAN = ("plan", "models", "patients")

__all__ = ["CHECKS", "Finding", "State", "Subject", "look"]


def look(subject: Subject) -> Iterator[tuple[str, Finding]]:
    """(what was looked at, a finding) of every check, in the order of the table; one that fails ends no other."""
    for name, check in CHECKS.items():
        if name in _OF_A_PLAN and subject.plan is None:
            yield name, Finding("skipped", "no plan was given: pass --plan plan.yaml")
            continue
        try:
            for finding in check(subject):
                yield name, finding
        except SfumatoError as error:
            yield name, Finding("wrong", str(error))
