"""Two copies of a ledger spend one budget twice: how a home that was copied, restored or handed over is told.

Three files beside the ledger. `.place` has the number of the ledger's file on its disk (inode), which a copy does not
have; `.restored` names the plans of whose charges nothing is known since the copy was made, until their coordinators
were heard or a person settled them; `.moved` says that the ledger lives elsewhere now. A copy of a whole disk has the
same inode and is not told by it: there the coordinators alone tell what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sfumato_common.errors import LedgerError
from sfumato_common.files import write_json

RESTORED = (
    "this home was copied, or restored from a backup, and what was charged since is not known. Nothing is charged "
    "until every coordinator of its open studies was heard, which a question of theirs does; or until a person has "
    "run 'sfumato-site ledger recover'"
)
MOVED = (
    "this home was handed over to another machine: its ledger goes on there, and here nothing is charged or sent any "
    "more. To go on here after all, stop the other one, hand it over, and restore what it writes"
)
REMOVED = (
    "this home was removed by 'sfumato-site remove': its ledger is kept to be read, and nothing is charged any more"
)


@dataclass(frozen=True)
class Restored:
    """That the ledger may be behind: since when that was seen, by what, and which plan hashes nobody was heard of."""

    at: str
    by: str
    unheard: tuple[str, ...]


def places(ledger: Path) -> tuple[Path, Path, Path]:
    """The three files: place, restored, moved."""
    place, restored, moved = (ledger.with_name(f"{ledger.name}.{word}") for word in ("place", "restored", "moved"))
    return place, restored, moved


def require_not_moved(ledger: Path) -> None:
    """Raise LedgerError where the ledger lives elsewhere, or was closed for good."""
    if places(ledger)[2].exists():
        raise LedgerError(REMOVED if closed_for(ledger) == "nowhere" else MOVED)


def why_nothing_is_charged(ledger: Path) -> str:
    """The sentence of a ledger that was handed over, removed, copied or restored; '' for one that may charge."""
    try:
        require_not_moved(ledger)
        require_heard(ledger)
    except LedgerError as error:
        return str(error)
    return ""


def close_ledger(ledger: Path, at: str, to: str) -> None:
    """Close the ledger, durably: it lives in the archive of id `to` now, or 'nowhere'."""
    write_json(places(ledger)[2], {"at": at, "to": to})


def closed_for(ledger: Path) -> str:
    """The id of the archive that the ledger was handed over in; '' for one that is open."""
    return str(_read(places(ledger)[2]).get("to", ""))


def reopen_ledger(ledger: Path) -> None:
    """Open it again, where what it was to be handed over in was never written."""
    places(ledger)[2].unlink(missing_ok=True)


def require_heard(ledger: Path) -> None:
    """Raise LedgerError while a copied or restored ledger is not settled."""
    if read_restored(ledger) is not None or is_elsewhere(ledger):
        raise LedgerError(RESTORED)


def read_restored(ledger: Path) -> Restored | None:
    """What is not known of a restored ledger; None where it is settled, or never was restored."""
    path = places(ledger)[1]
    if not path.exists():
        return None
    value = _read(path)
    try:
        return Restored(str(value["at"]), str(value["by"]), tuple(map(str, value["unheard"])))
    except (KeyError, TypeError):
        raise LedgerError(f"'{path.name}' beside the privacy ledger cannot be read; {RESTORED}") from None


def mark_restored(ledger: Path, at: str, by: str, unheard: Collection[str]) -> None:
    """Stop every charge until `unheard` plans, by hash, were heard or settled; what was unheard before stays so."""
    before = read_restored(ledger)
    known = set(before.unheard) if before else set()
    write_json(places(ledger)[1], asdict(Restored(at, by, tuple(sorted(known | set(unheard))))))


def hear(ledger: Path, plan_hash: str) -> Restored | None:
    """Note that the coordinator of a plan was heard; the mark where that was the last one, which is to be settled."""
    found = read_restored(ledger)
    if found is None or plan_hash not in found.unheard:
        return None
    left = tuple(each for each in found.unheard if each != plan_hash)
    if left:
        write_json(places(ledger)[1], asdict(Restored(found.at, found.by, left)))
        return None
    return found


def settle_restored(ledger: Path) -> None:
    """Let the ledger charge again."""
    places(ledger)[1].unlink(missing_ok=True)


def keep_place(ledger: Path) -> None:
    """Note where the ledger lies, so that a copy of it is told."""
    write_json(places(ledger)[0], {"inode": ledger.stat().st_ino})


def is_elsewhere(ledger: Path) -> bool:
    """Whether the ledger lies elsewhere than it was noted; False where that never was."""
    place = places(ledger)[0]
    return place.exists() and ledger.exists() and _read(place).get("inode") != ledger.stat().st_ino


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise LedgerError(
            f"'{path.name}' beside the privacy ledger cannot be read; restore it, or ask for help"
        ) from None
    return value if isinstance(value, dict) else {}
