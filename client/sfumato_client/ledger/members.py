"""Patients bound to their cohort at their first charge: pseudonyms in files that rows of the ledger name by sha256.

A patient pays the larger of two cohorts' totals only where nobody is ever in both. So whoever was charged in one stays
there, through every later ingest, split column and table. A file holds those who came new with one charge; files are
only added. One that is gone or altered is found, as its hash stands in the chain.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from sfumato_client.ledger.chain import Row
from sfumato_common.accounting.members import Members
from sfumato_common.errors import DataError, LedgerError
from sfumato_common.files import canonical_json, write_atomic


def members_folder(ledger: Path) -> Path:
    """Where the files of the ledger at that path lie."""
    return ledger.with_name("members")


def read_members(folder: Path, rows: Sequence[Row]) -> Members | None:
    """Everybody whom `rows` bound; None while that is nobody. Raises LedgerError for a file gone or altered."""
    train: set[str] = set()
    holdout: set[str] = set()
    key = ""
    for row in rows:
        if row.value["kind"] == "bind":
            key, bound = str(row.value["key"]), _read(folder, str(row.value["sha256"]))
            train.update(bound["train"])
            holdout.update(bound["holdout"])
    return Members(key, frozenset(train), frozenset(holdout)) if key else None


def check_members(bound: Members | None, members: Members) -> None:
    """Raise DataError when somebody of `members` was charged in the other cohort; LedgerError under another key."""
    if bound is None:
        return
    if bound.key != members.key:
        raise LedgerError(
            "patients were charged under another split key than this one, so that nobody can be told again; restore "
            "'split.key' of the site's identity folder from a backup"
        )
    for moved, was, would in (
        (members.train & bound.holdout, "held out", "train"),
        (members.holdout & bound.train, "training", "be held out"),
    ):
        if moved:
            raise DataError(
                f"patients who were charged as {was} patients before would {would} here, and would pay for both "
                "cohorts: a patient stays in the cohort of the first charge. Give them the same split as then"
            )


def write_new_members(folder: Path, bound: Members | None, members: Members) -> dict[str, str] | None:
    """Keep those of `members` that are not bound yet, durably; the fields of their row, None for nobody."""
    known = bound or Members(members.key)
    new = {"train": sorted(members.train - known.train), "holdout": sorted(members.holdout - known.holdout)}
    if not any(new.values()):
        return None
    data = canonical_json(new)
    digest = hashlib.sha256(data).hexdigest()
    write_atomic(folder / digest, data, mode=0o600)
    return {"key": members.key, "sha256": digest}


def _read(folder: Path, digest: str) -> dict[str, list[str]]:
    try:
        data = (folder / digest).read_bytes()
    except OSError:
        data = b""
    if hashlib.sha256(data).hexdigest() != digest:
        raise LedgerError(
            "who was charged in which cohort cannot be read any more: a file of 'members' beside the privacy ledger is "
            "missing or altered; restore it and the ledger from one backup"
        )
    return dict(json.loads(data))
