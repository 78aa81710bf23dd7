"""All that a site's own people may see at a glance: joined or not, work, studies, epsilon, and what to do next.

Read from the files of the home by any process. It stays at the site: epsilon of the ledger and signs of work are in it.
Epsilons are computed once for the same charges, and kept in the home (`accounting/kept.py`): no charge rests on them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sfumato_client.egress.progress import CONTACT_FILE
from sfumato_client.ledger import Ledger
from sfumato_client.ledger.copies import why_nothing_is_charged
from sfumato_client.ledger.head import has_begun
from sfumato_client.ledger.people import stewards
from sfumato_client.release.folder import release_folder
from sfumato_client.site.advice import advise
from sfumato_client.site.desk import Entry, queue
from sfumato_client.site.home import SiteHome
from sfumato_client.site.names import name_in
from sfumato_common.accounting.accountant import epsilon, json_epsilon
from sfumato_common.accounting.events import Cohort
from sfumato_common.accounting.kept import keeping
from sfumato_common.crypto.enrolment import require_current
from sfumato_common.crypto.identity import load_identity
from sfumato_common.errors import ConfigError, FederationError
from sfumato_common.files import read_object
from sfumato_common.locks import is_held
from sfumato_common.study.costs import stage_events, study_events
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import ReviewRules
from sfumato_common.study.words import Part

# a node that is not answered for so long has lost its coordinator; an idle one asks every 3 s, one that works every 25
SILENT_S = 90.0
# requests that fail for less are asked again, and nobody need know
_FAILING_S = 10.0
# states of a part that people see to; while a formal one waits nothing is told of the declared one
_WITH_PEOPLE = ("waits", "later", "decided")
_COHORTS: tuple[Cohort, ...] = ("train", "holdout")


def overview(root: Path, study: str = "") -> dict[str, Any]:
    """The site as it stands now, with the coordinator that it calls `study`; times are seconds since 1970.

    Raises ConfigError where the home has no policy.
    """
    home = SiteHome(root, study)
    policy = home.own_policy()
    contact, address = read_object(home.link / CONTACT_FILE), _address(home)
    plans = [home.accepted_plan(path.stem) for path in sorted(home.plans.glob("*.json"))]
    view: dict[str, Any] = {
        "site": policy.site,
        "enrolled": bool(address),
        "address": address,
        "ingested": (home.store / "store.json").exists(),
        "certificate": _certificate_note(home),
        **_node(home, contact),
        "ledger": why_nothing_is_charged(home.ledger_file),
        "heard": contact.get("heard"),
        "work": _work(home),
        "budget": {"epsilon": policy.budget.epsilon, "delta": policy.budget.delta},
        "epsilon": 0.0,
        "unsettled": 0,
        "progress": policy.progress,
        "answer_interval_s": policy.answer_interval_s,
        "studies": [],
        "waits": [],
        "stewards_missing": 0,
        "now": round(time.time(), 1),
    }
    if has_begun(home.ledger_file):  # a look begins no ledger
        with keeping(home.epsilons), home.open_ledger() as ledger:
            spent = max(ledger.spent_epsilon("train"), ledger.spent_epsilon("holdout"))
            view |= {"epsilon": json_epsilon(spent), "unsettled": len(ledger.entries()) - len(ledger.settled_results())}
            entries = [entry for entry in queue(root) if entry.state in _WITH_PEOPLE]
            held: dict[tuple[str, Part], Entry] = {(entry.plan.digest, entry.part): entry for entry in entries}
            view["studies"] = [_study(home, plan, name_in(home, plan), ledger, held) for plan in plans]
            view["waits"] = [entry.name for entry in held.values() if entry.state == "waits"]
            view["stewards_missing"] = _missing(home, policy.release.review, view["studies"], ledger)
    else:
        with keeping(home.epsilons):
            view["studies"] = [_study(home, plan, name_in(home, plan), None, {}) for plan in plans]
        view["stewards_missing"] = _missing(home, policy.release.review, view["studies"], None)
    return {**view, "next": advise(view)}


def _address(home: SiteHome) -> str:
    """host:port of the coordinator, '' before `join`."""
    try:
        return home.coordinator_address()
    except ConfigError:
        return ""


def _certificate_note(home: SiteHome) -> str:
    """What is to be said of certificates that ended or end soon; '' for others, and before there are any."""
    try:
        return require_current(home.grant) or ""
    except ConfigError:
        return ""
    except FederationError as error:
        return str(error)


def _node(home: SiteHome, contact: Mapping[str, Any]) -> dict[str, Any]:
    """What the node does: not running, connecting, joined, no answer, failed or stopped; since when; and why."""
    said = read_object(home.node_file) or {"state": "not running", "reason": "", "since": None}
    state, heard, why = said["state"], contact.get("heard"), contact.get("why", "")
    if state in ("connecting", "joined") and not is_held(home.link):
        return {"state": "killed", "reason": "", "since": heard}
    if state == "connecting" and why:
        return {"state": state, "reason": why, "since": contact["failed"]}
    if state == "joined" and why and time.time() - contact["failed"] > _FAILING_S:
        return {"state": "no answer", "reason": why, "since": contact["failed"]}
    if state == "joined" and heard is not None and time.time() - heard > SILENT_S:
        return {"state": "no answer", "reason": "", "since": heard}
    return {key: said[key] for key in ("state", "reason", "since")}


def _work(home: SiteHome) -> dict[str, Any] | None:
    """The last question; 'killed' where its process ended without an answer."""
    work = read_object(home.work_file)
    here = work.get("machine", "") in ("", os.uname().nodename)  # a launched job may be on another
    if work.get("state") == "working" and here and not _lives(int(work["process"])):
        work["state"] = "killed"
    return work or None


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _study(
    home: SiteHome, plan: Plan, site: str, ledger: Ledger | None, held: Mapping[tuple[str, Part], Entry]
) -> dict[str, Any]:
    """Rounds that were paid for by stage, and what became of each part of the release."""
    paid = [] if ledger is None else [entry for entry in ledger.entries() if entry.plan_hash == plan.digest]
    approved = {} if ledger is None else ledger.approvals(plan.digest)
    folder, parts = release_folder(home.releases, plan), {}
    for part in plan.parts_at(site):
        refused = folder.refusal(part)
        if (plan.digest, part) in held:
            parts[part] = held[plan.digest, part].words
            continue
        parts[part] = "approved" if part in approved else f"refused ({refused})" if refused else "to come"
    stages = [
        {
            "stage": stage.kind,
            "rounds": len(stage_events(plan, stage)),
            "done": sum(entry.purpose == stage.kind for entry in paid),
        }
        for stage in plan.stages
    ]
    return {
        "study": plan.study,
        "plan_hash": plan.digest,
        "private": plan.private,
        "stages": stages,
        "release": parts,
        **_paid(plan, ledger, home.own_policy().budget.delta),
    }


def _missing(home: SiteHome, rules: ReviewRules, studies: Sequence[Mapping[str, Any]], ledger: Ledger | None) -> int:
    """How many stewards fewer there are than have to say yes to a part that is still to come."""
    parts = [part for study in studies for part, state in study["release"].items() if state == "to come"]
    if not any(map(rules.asks, parts)):
        return 0
    known = {} if ledger is None else stewards(ledger, load_identity(home.identity).signing_public)
    return max(0, rules.persons - len(known))


def _paid(plan: Plan, ledger: Ledger | None, delta: float) -> dict[str, float | None]:
    """What a patient pays at most, over all studies: before this one, and when all of it is charged, at `delta`.

    In the second is what other studies under way will still charge: as `accept` forecasts it.
    """
    before, after = [], []
    for cohort in _COHORTS:
        charged = [] if ledger is None else ledger.events(cohort, except_plan=plan.digest)
        others = [] if ledger is None else ledger.committed(cohort, plan.digest)
        before.append(epsilon(charged, delta))
        after.append(epsilon([*others, *study_events(plan, cohort)], delta))
    return {"epsilon_before": json_epsilon(max(before)), "epsilon_after": json_epsilon(max(after))}
