"""What accepted studies under way will still charge: no other study, and no table, is let have it meanwhile.

Two studies of one site run side by side. Were only what was charged so far counted, one that began later could take the
budget that the first needs for its next round, and the first would have been paid for in vain.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sfumato_client.ledger.approvals import approvals
from sfumato_client.ledger.chain import Reservation, Row
from sfumato_common.accounting.accountant import count_mechanisms, expand_tally
from sfumato_common.accounting.events import Cohort, Event
from sfumato_common.study.costs import study_events
from sfumato_common.study.plan import Plan


def begun(
    rows: Sequence[Row], entries: Sequence[Reservation], accepted: Collection[Plan], names: Collection[str]
) -> list[Plan]:
    """The plans of `accepted` that have charged something, and whose release at the site was not approved whole yet.

    `names` are all by which plans know the site.
    """
    charged = {entry.plan_hash for entry in entries}
    approved = {(leave.plan_hash, leave.part) for leave in approvals(rows)}
    return [
        plan
        for plan in accepted
        for site in names
        if site in plan.sites and plan.digest in charged
        if not all((plan.digest, part) in approved for part in plan.parts_at(site))
    ]


def promised(
    rows: Sequence[Row],
    entries: Sequence[Reservation],
    accepted: Collection[Plan],
    names: Collection[str],
    cohort: Cohort,
    own: str,
) -> list[Event]:
    """What plans of `accepted` that are under way will still charge `cohort`; but `own`, a plan hash.

    What a study whose release is out still charges to holdout patients, for its figure, must fit by then.
    """
    found: list[Event] = []
    for plan in begun(rows, entries, accepted, names):
        if plan.private and plan.digest != own:
            mine = [entry.event for entry in entries if (entry.plan_hash, entry.cohort) == (plan.digest, cohort)]
            found += expand_tally(count_mechanisms(study_events(plan, cohort)) - count_mechanisms(mine))
    return found
