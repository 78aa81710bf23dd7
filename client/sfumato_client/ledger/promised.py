"""What accepted studies under way will still charge: no other study, and no table, is let have it meanwhile.

Two studies of one site run side by side. Were only what was charged so far counted, one that began later could take the
budget that the first needs for its next round, and the first would have been paid for in vain.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sfumato_client.ledger.approvals import approvals
from sfumato_client.ledger.chain import Reservation, Row
from sfumato_common.accounting.accountant import count_mechanisms, expand_tally
from sfumato_common.accounting.events import Cohort, Event, Unprotected
from sfumato_common.study.costs import study_events
from sfumato_common.study.plan import Plan


def promised(
    rows: Sequence[Row], entries: Sequence[Reservation], accepted: Collection[Plan], site: str, cohort: Cohort, own: str
) -> list[Event]:
    """What plans of `accepted` but `own`, a plan hash, will still charge `cohort` of `site`.

    Of a plan that has charged nothing yet nothing, and nothing of one whose release was approved whole: what such a
    study still charges to holdout patients, for its figure, must fit by then.
    """
    found: list[Event] = []
    for plan in accepted:
        if plan.digest == own or not plan.private or site not in plan.sites:
            continue
        mine = [entry.event for entry in entries if entry.plan_hash == plan.digest]
        parts = {leave.part for leave in approvals(rows) if leave.plan_hash == plan.digest}
        if not mine or parts >= set(plan.parts_at(site)):
            continue
        charged = count_mechanisms(
            entry.event for entry in entries if entry.plan_hash == plan.digest and entry.cohort == cohort
        )
        found += expand_tally(count_mechanisms(study_events(plan, cohort)) - charged)
    return [event for event in found if not isinstance(event, Unprotected)]
