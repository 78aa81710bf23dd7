"""A patient withdraws: gone from the store at once, and kept out of every later ingest, by pseudonym.

GDPR Article 7(3): what was done before stays lawful, nothing is done after. Article 17: images here are erased.
What was charged stays in the ledger, and what left stays out: `docs/lifecycle.md` says what can be undone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sfumato_client.dataset.tokens import alike_token
from sfumato_client.dataset.withdrawing import has_alike, owners_of, without
from sfumato_client.ledger.changing import cohort_held, require_none_begun
from sfumato_client.ledger.storage import now
from sfumato_client.site.home import SiteHome
from sfumato_client.site.ingesting import SHEET
from sfumato_client.site.withdrawn import read_withdrawn, withdrawn_file
from sfumato_common.accounting.members import pseudonym
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
    """Erase these patients' images, and keep them out from now on.

    Raises PolicyRefusal while a study has begun, BusyError while an ingest runs, and ConfigError where no image is of
    an identifier as it is written, but of one that is alike.
    """
    key, store_key = home.split_key(), home.store_key()
    named = {pseudonym(key, name): alike_token(key, name) for name in identifiers}
    make_private_folder(home.ingesting)
    with exclusive(home.ingesting, "an ingest"), home.open_ledger() as ledger:
        require_none_begun(ledger)
        owners = owners_of(home.store, store_key, named)
        unknown = {name: alike for name, alike in named.items() if name not in owners}
        if has_alike(home.store, store_key, unknown.values()):
            raise ConfigError(
                "an identifier is in the store in another writing (case, blanks, zeros): give it as the table has it; "
                "nothing was erased"
            )
        hold, tell = partial(cohort_held, ledger), partial(_keep, home, named)
        images = without(home.store, store_key, set(owners.values()), hold, tell) if owners else 0
        if not owners:
            tell()
        approved = sorted({plan.study for plan in ledger.accepted if ledger.approvals(plan.digest)})
    for sheet in (home.root / SHEET, *(path for link in home.links for path in link.steward_folder.glob("*.png"))):
        sheet.unlink(missing_ok=True)  # images in the clear, of members of groups too
    return Withdrawn(images, len(unknown), tuple(approved))


def take_back(home: SiteHome, identifiers: Sequence[str]) -> int:
    """Let the next ingest take these patients again, who agreed anew; how many of them had withdrawn."""
    gone = {pseudonym(home.split_key(), name) for name in identifiers}
    kept = json.loads(withdrawn_file(home).read_text()) if read_withdrawn(home) else {}
    left = {name: said for name, said in kept.items() if name not in gone}
    _write(home, left)
    return len(kept) - len(left)


def _keep(home: SiteHome, named: dict[str, str]) -> None:
    kept = json.loads(withdrawn_file(home).read_text()) if read_withdrawn(home) else {}
    _write(home, {**{name: {"alike": alike, "on": now()[:10]} for name, alike in named.items()}, **kept})


def _write(home: SiteHome, said: dict[str, object]) -> None:
    write_atomic(withdrawn_file(home), json.dumps(said, indent=2, sort_keys=True) + "\n", mode=0o600)
