"""A patient withdraws: gone from the store at once, and kept out of every later ingest, by pseudonym.

GDPR Article 7(3): what was done before stays lawful, nothing is done after. Article 17: images here are erased.
What was charged stays in the ledger, and what left stays out: `docs/lifecycle.md` says what can be undone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from sfumato_client.dataset.tokens import alike_token
from sfumato_client.dataset.withdrawing import Identifier, clear, has_alike, identifiers_of, owners_of, without
from sfumato_client.ledger import Ledger
from sfumato_client.ledger.changing import cohort_held, require_none_begun
from sfumato_client.ledger.storage import now
from sfumato_client.release.folder import is_candidate
from sfumato_client.site.erasing import require_idle
from sfumato_client.site.home import SiteHome
from sfumato_client.site.ingesting import SHEET
from sfumato_client.site.names import name_in
from sfumato_client.site.withdrawn import read_said, withdrawn_file
from sfumato_common.accounting.members import Members, pseudonym
from sfumato_common.errors import ConfigError
from sfumato_common.files import make_private_folder, write_atomic
from sfumato_common.locks import exclusive


@dataclass(frozen=True)
class Withdrawn:
    """What was done: images that were erased, patients who had none, and studies whose packages may still be sent."""

    images: int
    strangers: int
    approved: tuple[str, ...]


def withdraw(home: SiteHome, identifiers: Sequence[str]) -> Withdrawn:
    """Erase these patients' images, and keep them out from now on, under every identifier that the store knows.

    Raises PolicyRefusal while a study has begun, BusyError while an ingest runs or a question is worked on, and
    ConfigError where no image is of an identifier as it is written, but of one that is alike.
    """
    named = _tokens(home, identifiers)
    make_private_folder(home.ingesting)
    with exclusive(home.ingesting, "an ingest"), home.open_ledger() as ledger:
        require_none_begun(ledger)
        strangers, images = len(named), 0
        if home.store.exists():
            strangers, images = _erase(home, ledger, named)
        else:
            clear(home.store, b"")
            _keep(home, named, {})
        _erase_candidates(home, ledger)
        approved = sorted({plan.study for plan in ledger.accepted if ledger.approvals(plan.digest)})
    for sheet in (home.root / SHEET, *(path for link in home.links for path in link.steward_folder.glob("*.png"))):
        sheet.unlink(missing_ok=True)  # images in the clear, of members of groups too
    return Withdrawn(images, strangers, tuple(approved))


def strangers_among(home: SiteHome, identifiers: Sequence[str]) -> int:
    """How many of these have no image here, before a person says whether to erase. Raises ConfigError as `withdraw`."""
    if not home.store.exists():
        return len(set(identifiers))
    return len(_strangers(home, home.store_key(), _tokens(home, identifiers))[0])


def _tokens(home: SiteHome, identifiers: Sequence[str]) -> dict[str, str]:
    """The pseudonym of each identifier, with the token of all that are alike."""
    key = home.split_key()
    return {pseudonym(key, name): alike_token(key, name) for name in identifiers}


def _strangers(home: SiteHome, store_key: bytes, named: Mapping[str, str]) -> tuple[dict[str, str], dict[str, int]]:
    """Those of `named` who have no image here, and where the others stand in the store."""
    owners = owners_of(home.store, store_key, named)
    unknown = {name: alike for name, alike in named.items() if name not in owners}
    if has_alike(home.store, store_key, unknown.values()):
        raise ConfigError(
            "an identifier is in the store in another writing (case, blanks, zeros): give it as the table has it; "
            "nothing was erased"
        )
    return unknown, owners


def _erase(home: SiteHome, ledger: Ledger, named: dict[str, str]) -> tuple[int, int]:
    """How many of `named` have no image here, and how many images went."""
    store_key = home.store_key()
    unknown, owners = _strangers(home, store_key, named)
    tell = partial(_keep, home, unknown, identifiers_of(home.store, store_key, owners.values()))
    if not owners:
        clear(home.store, store_key)  # a command that was killed may have left what it took out
        tell()
        return len(unknown), 0
    return len(unknown), without(home.store, store_key, set(owners.values()), partial(_held, home, ledger), tell)


def _erase_candidates(home: SiteHome, ledger: Ledger) -> None:
    """Of releases that are whole, or of studies that were left: images made from groups, and who is behind them.

    What was approved is in packages, which stay. Nothing else of such a release ever leaves.
    """
    to_come = set()
    for plan in ledger.accepted:
        approved = ledger.approvals(plan.digest)
        if not all(part in approved for part in plan.parts_at(name_in(home, plan))):
            to_come.add(plan.digest[:16])
    for folder in home.releases.glob("*"):
        for path in folder.glob("*") if folder.name not in to_come else ():
            if is_candidate(path.name) or path.suffix == ".behind":
                path.unlink(missing_ok=True)


@contextmanager
def _held(home: SiteHome, ledger: Ledger, members: Members) -> Iterator[None]:
    """Nothing is charged within, and nobody works on: a study that was left in mid-question reads to its end."""
    with cohort_held(ledger, members):
        require_idle(home)
        yield


def take_back(home: SiteHome, identifiers: Sequence[str]) -> int:
    """Let the next ingest take these patients again, who agreed anew; how many of them had withdrawn.

    Raises BusyError while an ingest or a withdrawal runs.
    """
    again = {pseudonym(home.split_key(), name) for name in identifiers}
    make_private_folder(home.ingesting)
    with exclusive(home.ingesting, "an ingest"):
        kept = read_said(home)
        patients = {said.get("patient", name) for name, said in kept.items() if name in again}
        _write(home, {name: said for name, said in kept.items() if said.get("patient", name) not in patients})
    return len(again & set(kept))


def _keep(home: SiteHome, strangers: Mapping[str, str], known: Mapping[str, Identifier]) -> None:
    """Add to who has withdrawn: `strangers` with the token of what is alike, and all identifiers of who was here."""
    kept = read_said(home)
    said: dict[str, dict[str, Any]] = {name: {"alike": alike} for name, alike in strangers.items()}
    said |= {name: asdict(one) for name, one in known.items()}
    since = {name: kept[name]["on"] if name in kept else now()[:10] for name in said}
    _write(home, {**kept, **{name: {**one, "on": since[name]} for name, one in said.items()}})


def _write(home: SiteHome, said: Mapping[str, object]) -> None:
    write_atomic(withdrawn_file(home), json.dumps(said, indent=2, sort_keys=True) + "\n", mode=0o600)
