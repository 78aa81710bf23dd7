"""Sending a release: every package that an approval in the ledger names, and nothing else. It ends training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sfumato_client.egress.guard import deliver, pending_reply, review_reply
from sfumato_client.ledger import Ledger
from sfumato_client.ledger.approvals import Approval
from sfumato_client.release.folder import ReleaseFolder, release_folder
from sfumato_client.site.home import SiteHome
from sfumato_common.accounting.events import Cohort
from sfumato_common.errors import DataError, LedgerError, PolicyRefusal, ReleaseRefused
from sfumato_common.protocol.messages import Reply
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy

if TYPE_CHECKING:
    from sfumato_client.site.making import Maker


def send_release(
    folder: ReleaseFolder, plan: Plan, ledger: Ledger, public_key: bytes, upload: Callable[[bytes], None]
) -> Reply:
    """Upload the approved packages of a release that is made; `public_key` is the site's own.

    Raises LedgerError when one was lost since, and as `require_approved` when there is none.
    """
    require_approved(folder, plan, ledger)
    approvals = ledger.approvals(plan.digest)
    replies = [_deliver(folder, leave, public_key, upload) for part in approvals.values() for leave in part]
    return replies[-1]


def send_ahead(
    maker: Maker,
    plan: Plan,
    ledger: Ledger,
    public_key: bytes,
    upload: Callable[[bytes], None],
    hold: Callable[[], None],
) -> None:
    """Upload what is approved while people are still to decide about another part, each part once.

    What people have seen, and whether they ever decide, is then nothing that an approved formal part hangs on. `hold`
    waits for the site's next time of answering.
    """
    if not maker.waits_for_people:
        return
    for part, leaves in ledger.approvals(plan.digest).items():
        if not maker.folder.was_sent(part):
            hold()
            for leave in leaves:
                _deliver(maker.folder, leave, public_key, upload)
            maker.folder.keep_sent(part)


def _deliver(folder: ReleaseFolder, leave: Approval, public_key: bytes, upload: Callable[[bytes], None]) -> Reply:
    path = folder.package(leave.part, leave.shard)
    if not path.exists():
        which = f"{leave.part} package" if leave.shards == 1 else f"{leave.part} package {leave.shard}"
        raise LedgerError(f"the approved {which} was lost, and is not drawn again; restore it from a backup")
    return deliver(path.read_bytes(), leave, public_key, upload)


def unfinished(maker: Maker, policy: Policy) -> Reply | None:
    """What is said of a release that is not whole: that it is not; None when every part is decided.

    Where policy tells it, that people are all that it waits for.
    """
    if maker.decided:
        return None
    told = policy.release.review.queue == "told" and maker.waits_for_people
    return review_reply() if told else pending_reply()


def require_approved(folder: ReleaseFolder, plan: Plan, ledger: Ledger) -> None:
    """Raise what the parts of a finished release were refused for, when none of them was approved."""
    if ledger.approvals(plan.digest):
        return
    if ReleaseRefused.wire_code in {folder.refusal(part) for part in plan.parts}:
        raise ReleaseRefused("the gate did not approve the candidates: nothing is released; see the local gate report")
    raise DataError("no part of the release could be made from this site's images; the local log says why")


def require_training(home: SiteHome, plan: Plan, policy: Policy, cohort: Cohort) -> None:
    """Raise PolicyRefusal for a charge to training patients after the release began, in a plan that sites join later.

    There the certificate states what this site paid for training, and not the whole plan: from then on nothing is added
    to it. Called while the plan's turn is held, in which the release is begun too.
    """
    if not plan.joining or cohort == "holdout":
        return
    parts = {(part, 1) for part in plan.parts_at(policy.site)}
    with home.open_ledger() as ledger:
        released = ledger.unknown_answers(plan.digest, parts) != parts
    if released or release_folder(home.releases, plan).begun:
        raise PolicyRefusal(
            "the release has begun, and its certificate says what training took: none is begun any more"
        )
