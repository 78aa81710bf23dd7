"""Independent check of a package's or table's certificate against an exported ledger: chain, charges, epsilons anew.

The epsilons are recomputed by `prv.py`, which shares no code with the accountant that wrote them.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sfumato_client.ledger.admission import Tally
from sfumato_client.ledger.chain import Reservation
from sfumato_client.ledger.decisions import require_decided
from sfumato_client.ledger.export import ReadExport, read_export
from sfumato_client.ledger.prv import LossDistribution, loss_distributions
from sfumato_common.accounting.accountant import count_mechanisms, epsilon_text
from sfumato_common.accounting.events import Cohort, Declared, SummedGaussian, Unprotected, seen_with
from sfumato_common.accounting.pld import GRID, Adjacency, Pure, hopeless
from sfumato_common.accounting.tradeoff import DELTAS, reach_of
from sfumato_common.errors import LedgerError, VerificationError
from sfumato_common.package.archive import read_archive
from sfumato_common.package.manifest import Manifest, parse_manifest
from sfumato_common.package.package import MANIFEST, open_package
from sfumato_common.study.certificate import Certificate, StatedCost, StatedReach, StatedSums, stated_tally
from sfumato_common.tabular.certificate import TableCertificate, open_certificate

TOLERANCE = 1e-3
_COHORTS: tuple[Cohort, ...] = ("train", "holdout")


@dataclass(frozen=True)
class Figure:
    """One epsilon: who pays it, which one it is, what the certificate states, what was recomputed.

    `bound`: the stated one need only be no smaller, as it is a bound on the recomputed one. `slack`: by how much the
    certificate's accountant may have rounded up, beside 1e-3.
    """

    who: str
    name: str
    stated: float
    recomputed: float
    bound: bool = False
    slack: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether both agree to 1e-3 and the slack (a bound: lies no lower)."""
        if math.isinf(self.stated) or math.isinf(self.recomputed):
            return self.stated == self.recomputed
        beyond = self.stated - self.recomputed
        return beyond >= -TOLERANCE and (self.bound or beyond <= TOLERANCE + self.slack)


@dataclass(frozen=True)
class CheckReport:
    """What was found. `pending`: mechanisms that the certificate counts and the ledger was not charged for (yet).

    `unsettled`: charges that were never noted as carried out. `approvals`: how many of the export have a signature that
    holds; `approved`: whether one of them is for this very package, None for a table, which needs none.
    """

    site: str
    study: str
    plan_hash: str
    delta: float
    noise: str
    private: bool
    signature_checked: bool
    figures: tuple[Figure, ...]
    pending: int
    unsettled: int
    approvals: int = 0
    approved: bool | None = None

    def require(self) -> None:
        """Raise LedgerError when a stated epsilon is not the recomputed one."""
        if wrong := [figure for figure in self.figures if not figure.holds]:
            first = wrong[0]
            raise LedgerError(
                f"the certificate's epsilon ({first.who}, {first.name}) is {epsilon_text(first.stated, 4)}, recomputed "
                f"{epsilon_text(first.recomputed, 4)}: do not rely on the certificate, and inspect the site's "
                "installation"
            )


def check_package(export: bytes, package: bytes, public_key: bytes | None) -> CheckReport:
    """Recompute the certificate in `package` from `export`; its signature is checked if the site's key (PEM) is given.

    So are those of all approvals that the export holds. Raises LedgerError when the export was altered, charged more
    than is stated, or approved other packages of this plan and not this one; VerificationError when the package or an
    approval is not this site's, or cannot be read. Disagreement of epsilons is in the report: `require` raises it.
    """
    ledger = read_export(export)
    manifest = _manifest(package, public_key, ledger)
    _, own_key = ledger.keys(manifest.site, public_key)
    found = report_on(ledger, manifest.study, manifest.plan_hash, manifest.certificate, public_key is not None)
    signed, own = _check_approvals(ledger, manifest.plan_hash, package, own_key)
    return replace(found, approvals=signed, approved=own)


def check_table(
    export: bytes, certificate: bytes, signature: bytes, table: bytes, public_key: bytes | None
) -> CheckReport:
    """The same for a table and the certificate beside it, of which the ledger also keeps the hash.

    Raises as `check_package`, and LedgerError when another table was made under these charges.
    """
    ledger = read_export(export)
    stated = open_certificate(certificate, signature, table, None)
    signed_by, _ = ledger.keys(stated.site, public_key)
    open_certificate(certificate, signature, table, signed_by)
    sealed = {ledger.settled.get(entry.number) for entry in ledger.charges if entry.plan_hash == stated.plan_hash}
    if not sealed <= {stated.table_sha256, None}:
        raise LedgerError("the ledger settled another table under this certificate's charges; do not rely on it")
    return report_on(ledger, stated.study, stated.plan_hash, stated, public_key is not None)


def report_on(
    ledger: ReadExport, study: str, plan_hash: str, stated: Certificate, signature_checked: bool
) -> CheckReport:
    """What an export holds for a certificate, with every stated epsilon beside the one recomputed."""
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
        pending,
        sum(entry.number not in ledger.settled for entry in charges),
    )


def _manifest(package: bytes, public_key: bytes | None, ledger: ReadExport) -> Manifest:
    members = read_archive(package)
    if MANIFEST not in members:
        raise VerificationError("the package has no manifest; ask the sender again")
    manifest = parse_manifest(members[MANIFEST])
    signed_by, _ = ledger.keys(manifest.site, public_key)
    if signed_by is not None:
        open_package(
            package,
            signed_by,
            expected_site=manifest.site,
            expected_plan_hash=manifest.plan_hash,
            largest_bytes=len(package),
        )
    return manifest


def _check_approvals(ledger: ReadExport, plan_hash: str, package: bytes, public_key: bytes | None) -> tuple[int, bool]:
    """How many approvals have a signature that holds, and whether one is for `package`. Raises as `check_package`."""
    if public_key is not None:
        for leave in ledger.approvals:
            try:
                leave.check_signature(public_key)
            except VerificationError:
                raise VerificationError(
                    "an approval in the exported ledger was not signed with the site's key: do not rely on the export"
                ) from None
        require_decided(ledger.rows, ledger.approvals, public_key)
    of_plan = {leave.package_sha256 for leave in ledger.approvals if leave.plan_hash == plan_hash}
    approved = hashlib.sha256(package).hexdigest() in of_plan
    if of_plan and not approved:
        raise LedgerError(
            "the exported ledger approved other packages of this plan, and not this one; bring a later export, and do "
            "not rely on the package before it holds the approval"
        )
    return (len(ledger.approvals) if public_key is not None else 0), approved


def _beyond(charges: Sequence[Reservation], cohort: Cohort, stated: Tally) -> int:
    """How many runs the certificate counts beyond the ledger's. Raises LedgerError when it is the other way round."""
    charged = count_mechanisms(entry.event for entry in charges if entry.cohort == cohort)
    if cohort == "train" and stated and not charged:
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
    composed = [_recompute(tally, "add-remove") for tally in (train, holdout)]
    added = [_epsilon(found, delta) for found in composed]
    replaced = [_epsilon(_recompute(tally, "replace-one"), delta) for tally in (train, holdout)]
    # a patient who is replaced by one of the other cohort is removed there and added here; what a table charged to both
    # cohorts ran once
    apart = not (isinstance(stated, TableCertificate) and train == holdout)
    moved = [_epsilon(_recompute(train + holdout, "add-remove"), delta)] if apart else []
    added.append(max(added))
    replaced.append(max([*replaced, *moved]))
    # a loss without a distribution of its own is rounded up to the accountant's grid, once a run
    slack = GRID * sum(times for event, times in (train + holdout).items() if isinstance(event, Pure))
    figures: list[Figure] = []
    for at, who in enumerate(("train", "holdout", "patient")):
        cost: StatedCost = getattr(stated.epsilon, who)
        figures += [
            Figure(who, "add/remove", _number(cost.add_remove), added[at], slack=slack),
            Figure(who, "add/remove, RDP bound", _number(cost.add_remove_rdp), added[at], bound=True),
            Figure(who, "replace-one", _number(cost.replace_one), replaced[at], slack=slack),
        ]
    summed = stated.summed if isinstance(stated, Certificate) else None
    if summed is not None:
        figures += _sum_figures(summed, tallies, delta, slack)
    if stated.reach is not None:
        figures += _reach_figures(stated.reach, [found for found in composed if found is not None], delta, slack)
    return figures


def _sum_figures(stated: StatedSums, tallies: Mapping[Cohort, Tally], delta: float, slack: float) -> list[Figure]:
    """What sums cost by who looks, of the same mechanisms. Raises LedgerError where those rest on other sites."""
    shared = {event.among for tally in tallies.values() for event in tally if isinstance(event, SummedGaussian)}
    if not shared <= {stated.sites - stated.colluding}:
        raise LedgerError(
            "the certificate's sums rest on other numbers of sites than its mechanisms; do not rely on it"
        )
    figures: list[Figure] = []
    for who, noises, costs in (("coordinator", stated.sites, stated.coordinator), ("alone", 1, stated.alone)):
        for cohort in _COHORTS:
            seen = Counter({seen_with(event, noises): times for event, times in tallies[cohort].items()})
            hidden = not any(hopeless(event) for event in seen)
            found = _epsilon(_recompute(seen, "add-remove"), delta) if hidden else math.inf
            name = f"add/remove, sums against the {who}" if who == "coordinator" else "add/remove, own noise alone"
            figures.append(Figure(cohort, name, _number(getattr(costs, cohort).add_remove), found, slack=slack))
    return figures


def _reach_figures(
    stated: StatedReach, composed: Sequence[Sequence[LossDistribution]], delta: float, slack: float
) -> list[Figure]:
    """The ceilings, from the second accountant's delta at every epsilon; `pair` needs deltas beyond its precision."""
    again = reach_of([found for directions in composed for found in directions], delta)
    epsilons, attack = again.epsilon_at, again.tpr
    lines = [
        ("mu", _number(stated.mu), again.mu),
        *(
            (f"epsilon at {at.delta:g}", _number(at.epsilon), epsilons.get(at.delta, math.inf))
            for at in stated.epsilons
        ),
        ("AUC of an attack", stated.auc, again.auc),
        *((f"TPR at FPR {at.fpr:g}", at.tpr, attack.get(at.fpr, math.inf)) for at in stated.attack),
    ]
    return [Figure("patient", name, value, found, slack=slack + TOLERANCE) for name, value, found in lines]


def _epsilon(composed: Sequence[LossDistribution] | None, delta: float) -> float:
    return math.inf if composed is None else max(found.get_epsilon_for_delta(delta) for found in composed)


def _recompute(tally: Tally, adjacency: Adjacency) -> Sequence[LossDistribution] | None:
    """The composed loss in every direction; None where something left unprotected."""
    if any(isinstance(event, Unprotected) for event in tally):
        return None
    if any(hopeless(event) for event in tally):
        raise LedgerError("the certificate names a mechanism with so little noise that no epsilon can be stated for it")
    return loss_distributions(tally, DELTAS[-1], adjacency)


def _number(stated: float | None) -> float:
    return math.inf if stated is None else stated
