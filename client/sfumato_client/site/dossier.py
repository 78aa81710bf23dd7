"""What a site can show of a study: policy, ledger, its signed packages recomputed from it, and the gate's reports."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from sfumato_client.audit.verdict import report_path
from sfumato_client.ledger import Ledger
from sfumato_client.ledger.check import check_package
from sfumato_client.ledger.decisions import Decided
from sfumato_client.ledger.head import head_of
from sfumato_client.ledger.people import decided
from sfumato_client.release.folder import release_folder
from sfumato_client.site.desk import release_name
from sfumato_client.site.home import SiteHome
from sfumato_client.site.recovery import REVIEW_BOOKS
from sfumato_common.accounting.events import Declared
from sfumato_common.crypto.identity import load_identity
from sfumato_common.crypto.signatures import fingerprint
from sfumato_common.errors import ConfigError
from sfumato_common.evidence.decided import ReviewCharge, StatedDecision, StewardDecisions
from sfumato_common.evidence.facts import Facts, GateFacts, LedgerFacts, Source, Stated
from sfumato_common.package.archive import read_archive
from sfumato_common.package.manifest import parse_manifest
from sfumato_common.package.package import MANIFEST
from sfumato_common.study.certificate import stated_costs
from sfumato_common.study.plan import Plan
from sfumato_common.study.words import PARTS

_UNSIGNED = "the site's own file, which nobody signed"


def site_facts(home: SiteHome, study: str) -> Facts:
    """The facts of `study`, whose packages are recomputed from the ledger by the second accountant first.

    Raises ConfigError for a study that is not accepted here, LedgerError or VerificationError where something does not
    hold, so that no dossier is made from it.
    """
    link, plan = _accepted(home, study)
    policy, data = home.policy(), (home.root / "policy.yaml").read_bytes()
    with home.open_ledger() as ledger:
        stated = _stated(link, plan, ledger)
        facts = _ledger_facts(ledger, plan, load_identity(home.identity).signing_public)
        gate = list(_gate(link, plan, ledger))
    return Facts(
        side="site",
        plan=plan,
        plan_hash=plan.digest,
        plan_source=Source(f"plans/{plan.digest}.json", plan.digest, "the site, which accepted the plan of this hash"),
        stated=stated,
        policy=(policy, Source.of("policy.yaml", data, _UNSIGNED)),
        ledger=facts,
        gate=gate,
    )


def _accepted(home: SiteHome, study: str) -> tuple[SiteHome, Plan]:
    found = [(link, plan) for link in home.links for plan in link.readable_plans() if plan.study == study]
    if not found:
        raise ConfigError(f"no study '{study}' is accepted here; 'sfumato-site status' names those that are")
    return found[-1]


def _stated(home: SiteHome, plan: Plan, ledger: Ledger) -> dict[str, Stated]:
    """The certificate of each part's first package, signature and epsilons checked."""
    identity, export = load_identity(home.keys), ledger.export()
    folder, found = release_folder(home.releases, plan), dict[str, Stated]()
    for part in PARTS:
        path = folder.package(part)
        if not path.exists():
            continue
        package = path.read_bytes()
        check_package(export, package, identity.signing_public).require()
        manifest = read_archive(package)[MANIFEST]
        certificate = parse_manifest(manifest).certificate
        if all(one.certificate != certificate for one in found.values()):
            behind = f"site {ledger.site}, key {fingerprint(identity.signing_public)}"
            name = ledger.site if not found else f"{ledger.site} ({part})"
            found[name] = Stated(certificate, Source.of(f"{path.name}: {MANIFEST}", manifest, behind))
    return found


def _ledger_facts(ledger: Ledger, plan: Plan, site_key: bytes) -> LedgerFacts:
    head, leaves = head_of(ledger._rows()), ledger.approvals(plan.digest)
    return LedgerFacts(
        source=Source(f"ledger, row {head.number}", head.hash, f"the chain of hashes of site {ledger.site}"),
        budget=ledger.budget,
        spent=stated_costs(ledger.costs()),
        charges=len(ledger.entries()),
        open=len(ledger.unsettled_charges()),
        approvers=[leave.by for part in leaves.values() for leave in part],
        decisions=StewardDecisions(
            site=ledger.site,
            study=plan.study,
            plan_hash=plan.digest,
            head=head.hash,
            decisions=[_decision(one, ledger, plan) for one in decided(ledger, plan.digest, site_key)],
        ),
    )


def _decision(said: Decided, ledger: Ledger, plan: Plan) -> StatedDecision:
    """A decision whose signatures hold, with what was charged for it."""
    decision, purposes = said.decision, {f"{name}-{said.decision.part}" for name in REVIEW_BOOKS.values()}
    paid = [
        ReviewCharge(entry=entry.number, cohort=entry.cohort, what=entry.event.what)
        for entry in ledger.entries()
        if entry.plan_hash == plan.digest and entry.purpose in purposes and isinstance(entry.event, Declared)
    ]
    return StatedDecision(
        at=decision.at,
        release=release_name(plan, decision.part),
        part=decision.part,
        verdict=decision.verdict,
        ground=decision.ground,
        steward=said.by.fingerprint,
        sets=list(decision.sets),
        charged=paid,
        row=said.row_hash,
    )


def _gate(home: SiteHome, plan: Plan, ledger: Ledger) -> Iterator[GateFacts]:
    """The reports on the very sets that the ledger's approvals name."""
    for leaves in ledger.approvals(plan.digest).values():
        path = report_path(home.steward_folder, leaves[0].sets)
        if path.exists():
            data = path.read_bytes()
            report = json.loads(data)
            figures = [_figure(found) for found in report.get("findings", [])] or ["the private test"]
            figures += [_attack(tried) for tried in report.get("attacks", [])]
            figures += [_not_tried(untried) for untried in report.get("attacks_not_tried", [])]
            yield GateFacts(Source.of(path.name, data, _UNSIGNED), bool(report["approved"]), figures)


def _figure(found: Mapping[str, Any]) -> str:
    """A rule of the gate with what it measured and its limit."""
    return f"{found['of']}: {found['rule']} {found['value']:.3g}, {found['bound']} {found['limit']:.3g}"


def _attack(tried: Mapping[str, Any]) -> str:
    """An attack's area under the curve with its interval and sample sizes, and what so few patients cannot show."""
    low, high = tried["auc_interval"]
    said = f"{tried['of']}: attack {tried['name']} AUC {tried['auc']:.3g} [{low:.3g}, {high:.3g}]"
    counts = f"{tried['members']} training and {tried['holdout']} holdout patients"
    return f"{said} of {counts}" + (f"; underpowered: {tried['underpowered']}" if tried["underpowered"] else "")


def _not_tried(untried: Mapping[str, Any]) -> str:
    return f"{untried['of']}: attack {untried['attack']} could not be tried, {untried['reason']}"
