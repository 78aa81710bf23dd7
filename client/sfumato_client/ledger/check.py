"""Independent check of a certificate against an exported ledger: chain, charges, and every epsilon anew.

Of a release package, or of a table.

The epsilons are recomputed by `prv.py`, which shares no code with the accountant that wrote them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sfumato_client.ledger.admission import Tally
from sfumato_client.ledger.chain import Reservation
from sfumato_client.ledger.export import ReadExport, read_export
from sfumato_client.ledger.prv import epsilon_prv, unchecked_mechanisms
from sfumato_common.accounting.accountant import count_mechanisms, epsilon_text
from sfumato_common.accounting.events import Cohort, Declared, Unprotected
from sfumato_common.accounting.pld import Adjacency, hopeless
from sfumato_common.errors import LedgerError, VerificationError
from sfumato_common.package.archive import read_archive
from sfumato_common.package.manifest import Manifest, parse_manifest
from sfumato_common.package.package import MANIFEST, open_package
from sfumato_common.study.certificate import Certificate, StatedCost, stated_tally
from sfumato_common.tabular.certificate import open_certificate

TOLERANCE = 1e-3
_COHORTS: tuple[Cohort, ...] = ("train", "holdout")


@dataclass(frozen=True)
class Figure:
    """One epsilon: who pays it, which one it is, what the certificate states, what was recomputed (None: not checked).

    `bound`: the stated one need only be no smaller, as it is a bound on the recomputed one.
    """

    who: str
    name: str
    stated: float
    recomputed: float | None
    bound: bool = False

    @property
    def holds(self) -> bool | None:
        """Whether both agree to 1e-3 (a bound: lies no lower); None when there is nothing to compare with."""
        if self.recomputed is None:
            return None
        if math.isinf(self.stated) or math.isinf(self.recomputed):
            return self.stated == self.recomputed
        beyond = self.stated - self.recomputed
        return beyond >= -TOLERANCE if self.bound else abs(beyond) <= TOLERANCE


@dataclass(frozen=True)
class CheckReport:
    """What was found. `pending`: mechanisms that the certificate counts and the ledger was not charged for (yet).

    `unsettled`: charges that were never noted as carried out.
    """

    site: str
    study: str
    plan_hash: str
    delta: float
    noise: str
    private: bool
    signature_checked: bool
    figures: tuple[Figure, ...]
    not_checked: tuple[str, ...]
    pending: int
    unsettled: int

    def require(self) -> None:
        """Raise LedgerError when a stated epsilon is not the recomputed one."""
        if wrong := [figure for figure in self.figures if figure.holds is False]:
            first = wrong[0]
            raise LedgerError(
                f"the certificate's epsilon ({first.who}, {first.name}) is {epsilon_text(first.stated, 4)}, recomputed "
                f"{epsilon_text(first.recomputed, 4)}: do not rely on the certificate, and inspect the site's "
                "installation"
            )


def check_package(export: bytes, package: bytes, public_key: bytes | None) -> CheckReport:
    """Recompute the certificate in `package` from `export`; its signature is checked if the site's key (PEM) is given.

    Raises LedgerError when the export was altered or charged more than is stated, VerificationError when the package
    is not this site's or cannot be read. Disagreement of epsilons is in the report: `require` raises it.
    """
    ledger = read_export(export)
    manifest = _manifest(package, public_key, ledger.site)
    return _report(ledger, manifest.study, manifest.plan_hash, manifest.certificate, public_key is not None)


def check_table(
    export: bytes, certificate: bytes, signature: bytes, table: bytes, public_key: bytes | None
) -> CheckReport:
    """The same for a table and the certificate beside it, of which the ledger also keeps the hash.

    Raises as `check_package`, and LedgerError when another table was made under these charges.
    """
    ledger = read_export(export)
    stated = open_certificate(certificate, signature, table, public_key)
    if stated.site != ledger.site:
        raise VerificationError("the table was made by another site than the exported ledger")
    sealed = {ledger.settled.get(entry.number) for entry in ledger.charges if entry.plan_hash == stated.plan_hash}
    if not sealed <= {stated.table_sha256, None}:
        raise LedgerError("the ledger settled another table under this certificate's charges; do not rely on it")
    return _report(ledger, stated.study, stated.plan_hash, stated, public_key is not None)


def _report(
    ledger: ReadExport, study: str, plan_hash: str, stated: Certificate, signature_checked: bool
) -> CheckReport:
    charges = [entry for entry in ledger.charges if entry.plan_hash == plan_hash]
    tallies = {cohort: stated_tally(stated.mechanisms.get(cohort, [])) for cohort in _COHORTS}
    pending = sum(_beyond(charges, cohort, tallies[cohort]) for cohort in _COHORTS)
    _check_declared(charges, stated)
    return CheckReport(
        ledger.site,
        study,
        plan_hash,
        stated.delta,
        stated.noise,
        stated.private,
        signature_checked,
        tuple(_figures(stated, tallies)),
        tuple(unchecked_mechanisms(tallies["train"] + tallies["holdout"])),
        pending,
        sum(entry.number not in ledger.settled for entry in charges),
    )


def _manifest(package: bytes, public_key: bytes | None, site: str) -> Manifest:
    members = read_archive(package)
    if MANIFEST not in members:
        raise VerificationError("the package has no manifest; ask the sender again")
    manifest = parse_manifest(members[MANIFEST])
    if manifest.site != site:
        raise VerificationError("the package was made by another site than the exported ledger")
    if public_key is not None:
        open_package(
            package,
            public_key,
            expected_site=site,
            expected_plan_hash=manifest.plan_hash,
            largest_bytes=len(package),
        )
    return manifest


def _beyond(charges: Sequence[Reservation], cohort: Cohort, stated: Tally) -> int:
    """How many runs the certificate counts beyond the ledger's. Raises LedgerError when it is the other way round."""
    charged = count_mechanisms(entry.event for entry in charges if entry.cohort == cohort)
    if cohort == "train" and not charged:
        raise LedgerError("the exported ledger has no charge under the certificate's plan; bring a later export")
    if not charged <= stated:
        raise LedgerError(f"the ledger charged {cohort} patients more than the certificate states; do not rely on it")
    return (stated - charged).total()


def _check_declared(charges: Sequence[Reservation], stated: Certificate) -> None:
    named = {(item.what, item.bits) for item in stated.declared}
    charged = {(entry.event.what, entry.event.bits) for entry in charges if isinstance(entry.event, Declared)}
    if not charged <= named:
        raise LedgerError("the ledger has a declared disclosure that the certificate does not name; do not rely on it")


def _figures(stated: Certificate, tallies: Mapping[Cohort, Tally]) -> list[Figure]:
    """Every stated epsilon beside the recomputed one."""
    delta, train, holdout = stated.delta, tallies["train"], tallies["holdout"]
    added = [_recompute(tally, delta, "add-remove") for tally in (train, holdout)]
    replaced = [_recompute(tally, delta, "replace-one") for tally in (train, holdout)]
    # a patient who is replaced by one of the other cohort is removed there and added here
    moved = _recompute(train + holdout, delta, "add-remove")
    added.append(_largest(added))
    replaced.append(_largest([*replaced, moved]))
    figures: list[Figure] = []
    for at, who in enumerate(("train", "holdout", "patient")):
        cost: StatedCost = getattr(stated.epsilon, who)
        figures += [
            Figure(who, "add/remove", _number(cost.add_remove), added[at]),
            Figure(who, "add/remove, RDP bound", _number(cost.add_remove_rdp), added[at], bound=True),
            Figure(who, "replace-one", _number(cost.replace_one), replaced[at]),
        ]
    return figures


def _recompute(tally: Tally, delta: float, adjacency: Adjacency) -> float | None:
    if any(hopeless(event) and not isinstance(event, Unprotected) for event in tally):
        raise LedgerError("the certificate names a mechanism with so little noise that no epsilon can be stated for it")
    return None if unchecked_mechanisms(tally) else epsilon_prv(tally, delta, adjacency)


def _number(stated: float | None) -> float:
    return math.inf if stated is None else stated


def _largest(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None
