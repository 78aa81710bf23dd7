"""A coordinator's home as one encrypted file, and a home from it: to be safe from a lost disk, or to go elsewhere.

Plan, keys, enrolments, receipts, checkpoints, packages that came, and the list of versions. The CA's key stays under
its own passphrase. A home that is handed over is closed before the file has its name; what is restored runs when a
person has said that no other copy does (`enrol/copies.py`).
"""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from sfumato_common.crypto.archive import below, manifest_of, unpacked, write_archive
from sfumato_common.crypto.sealed_file import DAMAGED
from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.locks import LOCK, exclusive
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.enrol.copies import (
    MOVED,
    close_home,
    closed_for,
    keep_place,
    mark_copy,
    now,
    reopen_home,
    require_only,
)
from sfumato_server.status.overview import CONTACTS

FORMAT = "sfumato-coordinator-backup/1"
_OTHER = "the file is no backup of a coordinator, or of another version of Sfumato"
# of one machine and one run alone
_LEFT_OUT = {"logs", "superlink.secret", "nodes.json", "ports.json", CONTACTS, LOCK, MOVED}


@dataclass(frozen=True)
class Manifest:
    """What a backup is: of which study's coordinator, when it was made, and whether the home was handed over."""

    format: str
    id: str
    study: str
    plan_hash: str
    at: str
    handed_over: bool


def write_backup(root: Path, out: Path, passphrase: bytes, *, hand_over: bool = False) -> Manifest:
    """Write the home `root` into the encrypted file `out`; with `hand_over` it is closed before the file is there.

    Raises BusyError while the coordinator runs; ConfigError for a short passphrase, a file that is there or would lie
    in the home, and for a copy or a home that was handed over, but for handing it over once more where the file was
    lost.
    """
    if out.exists() or out.resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"'{out.name}' is there already, or would be a part of itself; give another name and folder")
    plan, before = CoordinatorHome(root).plan(), closed_for(root)
    with exclusive(root, f"the coordinator of study '{plan.study}'"):
        if not (before and hand_over):
            require_only(root)
        said = Manifest(FORMAT, before or secrets.token_hex(16), plan.study, plan.study_digest, now(), hand_over)
        if hand_over:
            close_home(root, said.id)
        try:
            write_archive(out, passphrase, asdict(said), root, below(root, _LEFT_OUT))
        except BaseException:
            if hand_over and not before and not out.exists():
                reopen_home(root)
            raise
    return said


def restore_backup(archive: Path, root: Path, passphrase: bytes) -> Manifest:
    """Make the home `root` from a backup; it passes for a copy until `settle_copy`.

    Raises ConfigError where something stands at `root`, VerificationError for a damaged file or another passphrase.
    """
    with unpacked(archive, root, passphrase) as (note, partial):
        said = manifest_of(note, Manifest, FORMAT, _OTHER)
        if CoordinatorHome(partial).plan().study_digest != said.plan_hash:
            raise VerificationError(DAMAGED)
        kind = "handed over" if said.handed_over else "restored from a backup"
        mark_copy(partial, f"{kind} (written at {said.at})")
    return said


def settle_copy(root: Path) -> None:
    """A person said that no other copy of the home runs, or will. Raises ConfigError for one that was handed over."""
    if closed_for(root):
        require_only(root)
    keep_place(root, "a person said that no other copy of this home is in use")
