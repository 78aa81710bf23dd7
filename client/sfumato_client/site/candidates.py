"""Finished candidate sets of a release, read back and held against the ledger: for the gate, the seal, and people."""

from __future__ import annotations

from sfumato_client.anonymise import CandidateSet
from sfumato_client.ledger import Ledger
from sfumato_client.ledger.charged import Terms, has_open_charge, recall
from sfumato_client.release.folder import ReleaseFolder
from sfumato_common.mechanisms.sealed import Sealed
from sfumato_common.study.costs import release_events
from sfumato_common.study.plan import Plan
from sfumato_common.study.release import AnyItem


def item_terms(plan: Plan, item: AnyItem) -> Terms:
    """Where the charge of an item of the release stands."""
    return Terms.of(plan, f"release-{item.method}-{item.model}", 1, "train")


def read_finished(ledger: Ledger, folder: ReleaseFolder, plan: Plan, item: AnyItem) -> Sealed[CandidateSet] | None:
    """The kept set of an item that was made and settled; None while there is work left.

    Raises EgressRefused for one that is not as it was sealed, VerificationError for a damaged file.
    """
    found, terms = folder.item(item), item_terms(plan, item)
    if found is None or has_open_charge(ledger, terms):
        return None
    return recall(ledger, terms, release_events(plan, item), found)
