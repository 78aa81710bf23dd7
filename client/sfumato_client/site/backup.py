"""A site's home as one encrypted file, and a home from it: to be safe from a lost disk, or to go to another machine.

Keys, policy, ledger, accepted plans, answers that were kept and packages that were approved. Images, and candidates
that nobody has let go, are in it only where somebody says so. A home that is handed over is closed before the file has
its name: two machines never go on with one ledger. What is restored charges nothing before the coordinators of its open
studies were heard (`restored.py`): an older ledger gives no budget back.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from sfumato_client.ledger.copies import (
    close_ledger,
    closed_for,
    keep_place,
    mark_restored,
    places,
    reopen_ledger,
)
from sfumato_client.ledger.head import read_head
from sfumato_client.ledger.storage import connect, now, transaction
from sfumato_client.release.folder import is_candidate
from sfumato_client.site.erasing import nothing_runs
from sfumato_client.site.home import SiteHome
from sfumato_client.site.ingesting import SHEET
from sfumato_client.site.restored import notice_copy, open_plans
from sfumato_common.crypto.archive import below, manifest_of, unpacked, write_archive
from sfumato_common.crypto.sealed_file import DAMAGED
from sfumato_common.errors import ConfigError, LedgerError, VerificationError
from sfumato_common.locks import LOCK

FORMAT = "sfumato-backup/1"
_OTHER = "the file is no backup of a site, or of another version of Sfumato, which restores it"
# of one machine alone, or had again
_LEFT_OUT = {"logs", "received", "ingesting", "worker.secret", "node.json", "work.json", LOCK}
# of patients, or not yet let go
_IMAGES = {"store", ".store.partial", "store.newest", "incoming", "local", SHEET, "ingest-report.json", "store.key"}


@dataclass(frozen=True)
class Manifest:
    """What a backup is: whose, when it was made, of which end of the ledger, and whether the home was handed over."""

    format: str
    id: str
    site: str
    at: str
    handed_over: bool
    images: bool
    entries: int
    head: str


def write_backup(
    home: SiteHome, out: Path, passphrase: bytes, *, images: bool = False, hand_over: bool = False
) -> Manifest:
    """Write the home into the encrypted file `out`; with `hand_over` it is closed for good before the file is there.

    Raises BusyError while the site runs, ConfigError for a short passphrase or a file that is there, and LedgerError
    for a home that was handed over or removed before, but for handing it over once more where the file was lost.
    """
    if out.exists():
        raise ConfigError(f"'{out.name}' is there already; give another name")
    with nothing_runs(home):
        ledger, before = home.ledger_file, closed_for(home.ledger_file)
        with home.open_ledger() as book:  # whole, and of this site
            book.verify()
        if before == "nowhere" or (before and not hand_over):
            raise LedgerError("this home is closed: only what it was handed over in can be written once more")
        notice_copy(home)
        head, archive = read_head(ledger), before or secrets.token_hex(16)
        assert head is not None, "an open ledger has a head"
        said = Manifest(FORMAT, archive, home.own_policy().site, now(), hand_over, images, head.number + 1, head.hash)
        connection = connect(ledger)
        try:
            with transaction(connection):  # nobody writes meanwhile, so that the file is whole as it lies there
                if hand_over:
                    close_ledger(ledger, said.at, said.id)
                write_archive(out, passphrase, asdict(said), home.root, _files(home.root, images))
        except BaseException:
            if hand_over and not before and not out.exists():
                reopen_ledger(ledger)
            raise
        finally:
            connection.close()
    return said


def restore_backup(archive: Path, root: Path, passphrase: bytes) -> tuple[Manifest, list[str]]:
    """Make the home `root` from a backup; what it is, and the studies whose coordinators are to be heard first.

    Nothing is charged in it before that; where none is open, before a person has said that no other copy is in use.
    Raises ConfigError where something stands at `root`, VerificationError for a damaged file or another passphrase.
    """
    with unpacked(archive, root, passphrase) as (note, partial):
        said, home = manifest_of(note, Manifest, FORMAT, _OTHER), SiteHome(partial)
        with home.open_ledger() as ledger:
            ledger.verify()
        head, site = read_head(home.ledger_file), home.own_policy().site
        if head is None or (head.number + 1, head.hash) != (said.entries, said.head) or said.site != site:
            raise VerificationError(DAMAGED)
        unheard = open_plans(home)
        mark_restored(home.ledger_file, now(), _words(said), [plan.digest for plan in unheard])
    keep_place(SiteHome(root).ledger_file)
    return said, sorted({plan.study for plan in unheard})


def _words(said: Manifest) -> str:
    kind = "handed over" if said.handed_over else "restored from a backup"
    return f"{kind} (written on {said.at[:10]}, {said.entries} entries)"


def _files(root: Path, images: bool) -> Iterator[Path]:
    """The home's folders and files that a backup has, no link among them."""
    place, _, moved = places(SiteHome(root).ledger_file)
    for path in below(root, _LEFT_OUT | {place.name, moved.name} | (set() if images else _IMAGES)):
        if images or not (path.parent.parent.name == "releases" and is_candidate(path.name)):
            yield path
