"""A home that was copied or restored: whose word it waits for before anything is charged, and how that ends.

An older ledger must not give budget back, and two copies of one ledger must not both charge. So whoever's study is open
here is heard first: each question of a coordinator tells what it holds of this site (`recovery.py`).
"""

from __future__ import annotations

from sfumato_client.ledger import Ledger
from sfumato_client.ledger.copies import (
    hear,
    is_elsewhere,
    keep_place,
    mark_restored,
    read_restored,
    require_not_moved,
    settle_restored,
)
from sfumato_client.ledger.people import note_restored
from sfumato_client.ledger.storage import now
from sfumato_client.release.folder import release_folder
from sfumato_client.site.accepted import ENDED, read_plan
from sfumato_client.site.home import SiteHome
from sfumato_client.site.names import name_in
from sfumato_common.errors import PolicyRefusal
from sfumato_common.study.plan import Plan


def open_plans(home: SiteHome) -> list[Plan]:
    """Accepted plans that may charge more, or have: a part of the release or the figure is still to come."""
    plans = {plan.digest: plan for link in home.links for plan in link.readable_plans()}
    with home.open_ledger() as ledger:
        named = [(plan, name_in(home, plan)) for _, plan in sorted(plans.items())]
        return [plan for plan, site in named if site in plan.sites and _is_open(home, plan, site, ledger)]


def _is_open(home: SiteHome, plan: Plan, site: str, ledger: Ledger) -> bool:
    approved, folder = ledger.approvals(plan.digest), release_folder(home.releases, plan)
    if any(part not in approved and folder.refusal(part) is None for part in plan.parts_at(site)):
        return True
    return plan.utility is not None and bool(ledger.unknown_answers(plan.digest, [("utility", 1)]))


def known_plan(home: SiteHome, digest: str) -> Plan:
    """The plan of that hash, also of a study that was left. Raises PolicyRefusal where it is not here."""
    for link in home.links:
        for path in (link.plans / f"{digest}.json", link.plans / f"{digest}{ENDED}"):
            if path.exists():
                return read_plan(path)
    raise PolicyRefusal("a plan of which charges may be missing is not in this home; restore its file from the backup")


def require_here(home: SiteHome) -> None:
    """Note where the home lies, so that a copy is told; a copy is told of at once.

    Raises LedgerError for a home that was handed over or removed.
    """
    require_not_moved(home.ledger_file)
    with home.open_ledger():
        pass  # it is begun, and whole
    if not notice_copy(home):
        keep_place(home.ledger_file)


def notice_copy(home: SiteHome) -> bool:
    """Whether this home lies elsewhere than it was; then nothing is charged until its open studies were heard."""
    if not home.ledger_file.exists() or not is_elsewhere(home.ledger_file):
        return False
    mark_restored(home.ledger_file, now(), "a copy", [plan.digest for plan in open_plans(home)])
    keep_place(home.ledger_file)
    return True


def hear_of(home: SiteHome, digest: str) -> None:
    """A coordinator told what it holds under that plan, and all of it is known here."""
    if hear(home.ledger_file, digest) is not None:
        go_on(home, "every coordinator of an open study was heard, and held nothing that is not here")


def go_on(home: SiteHome, how: str) -> None:
    """Let a copied or restored ledger charge again; what it was is an entry of its own."""
    mark = read_restored(home.ledger_file)
    assert mark is not None, "only a marked ledger is settled"
    with home.open_ledger() as ledger:
        note_restored(ledger, f"this ledger was found to be {mark.by} on {mark.at[:10]}; {how}")
    settle_restored(home.ledger_file)
