"""Stewards as rows of the ledger: who may say yes or no to a release here, by a key of the person's own.

The first steward is entered by the site's key alone; every further one comes, and everyone goes, with the signature of
a steward of that moment. A row shows when somebody came or went. It binds people who use the commands: whoever may
write all of the home's files holds the site's key too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from sfumato_client.ledger.chain import Row, next_row
from sfumato_common.crypto.signatures import fingerprint, pem_of, verify
from sfumato_common.errors import ConfigError, LedgerError, PolicyRefusal, VerificationError
from sfumato_common.files import canonical_json

STEWARD_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
Change = Literal["add", "remove"]
Sign = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Stewardship:
    """That `name`, whose Ed25519 key has the 32 bytes `key`, became a steward of `site`, or is one no longer.

    `by` is the steward who let the person in, or go; '' for the first one, and in rows of before where somebody went.
    Both signatures are over `statement`, domain "stewardship": `by`'s own where there is one, and the site's.
    """

    site: str
    name: str
    key: str
    change: Change
    by: str
    at: str
    by_signature: bytes = b""
    signature: bytes = b""

    @property
    def public_key(self) -> bytes:
        """PEM of the steward's public key."""
        return pem_of(bytes.fromhex(self.key))

    @property
    def fingerprint(self) -> str:
        """What tells the key from another one: five groups of four letters."""
        return fingerprint(self.public_key)

    @property
    def statement(self) -> bytes:
        """What is signed."""
        return canonical_json(self._stated())

    def fields(self) -> dict[str, Any]:
        """The row's fields."""
        return {**self._stated(), "by_signature": self.by_signature.hex(), "signature": self.signature.hex()}

    def _stated(self) -> dict[str, Any]:
        names = ("site", "name", "key", "change", "by", "at")
        return {name: getattr(self, name) for name in names}


def require_steward_name(name: str) -> None:
    """Raise ConfigError for a name that no steward can have."""
    if not STEWARD_NAME.fullmatch(name):
        raise ConfigError(f"'{name}': write a steward's name in small letters, digits and '-', a letter first")


def stewardship(
    site: str, name: str, key: bytes, change: Change, at: str, sign: Sign, by: str = "", by_sign: Sign | None = None
) -> Stewardship:
    """A new one, signed by the site (`SiteIdentity.sign_stewardship`) and by steward `by`, who lets in or lets go."""
    found = Stewardship(site, name, key.hex(), change, by, at)
    by_signature = by_sign(found.statement) if by_sign is not None else b""
    return replace(found, by_signature=by_signature, signature=sign(found.statement))


def stewards_of(rows: Sequence[Row], site_key: bytes) -> dict[str, Stewardship]:
    """Who is a steward after `rows`, by name; `site_key` is the site's own (PEM).

    Raises LedgerError for a row that the site, or who let somebody in or go, did not sign, or that makes no sense.
    """
    found: dict[str, Stewardship] = {}
    for row in rows:
        if row.value["kind"] == "steward":
            found = _after(found, _stewardship(row), site_key, row.number)
    return found


def stewardship_row(rows: Sequence[Row], change: Stewardship, site_key: bytes) -> Row:
    """The row that follows `rows`. Raises ConfigError or PolicyRefusal for a change that cannot be."""
    known = stewards_of(rows, site_key)
    require_steward_name(change.name)
    if (change.name in known) == (change.change == "add"):
        raise ConfigError(f"'{change.name}' is {'a steward already' if change.name in known else 'no steward here'}")
    if change.change == "add" and change.key in {each.key for each in known.values()}:
        raise PolicyRefusal("another steward has this key: two people need two")
    if change.change == "add" and known and change.by not in known:
        raise PolicyRefusal(
            f"there are stewards here ({', '.join(sorted(known))}): one of them lets the next one in, by --by and the "
            "own passphrase"
        )
    if change.change == "remove" and change.by not in known:
        raise PolicyRefusal("a steward is let go by a steward, the same or another, by --by and the own passphrase")
    _after(known, change, site_key, len(rows))
    return next_row(rows, "steward", change.fields())


def _after(known: dict[str, Stewardship], change: Stewardship, site_key: bytes, number: int) -> dict[str, Stewardship]:
    wrong = LedgerError(f"entry {number} of the privacy ledger makes nobody a steward: it is not signed as it must be")
    try:
        verify(site_key, "stewardship", change.statement, change.signature)
        if (change.change == "add" and known) or change.by:
            verify(known[change.by].public_key, "stewardship", change.statement, change.by_signature)
    except (VerificationError, KeyError):
        raise wrong from None
    left = {name: each for name, each in known.items() if name != change.name}
    return {**left, change.name: change} if change.change == "add" else left


def _stewardship(row: Row) -> Stewardship:
    value = row.value
    try:
        found = Stewardship(
            site=str(value["site"]),
            name=str(value["name"]),
            key=str(value["key"]),
            change=value["change"],
            by=str(value["by"]),
            at=str(value["at"]),
            by_signature=bytes.fromhex(value["by_signature"]),
            signature=bytes.fromhex(value["signature"]),
        )
        known = found.change in get_args(Change) and len(bytes.fromhex(found.key)) == 32
    except (KeyError, TypeError, ValueError):
        known = False
    if not known:
        raise LedgerError(f"entry {row.number} of the privacy ledger is no steward; use the version that wrote it")
    return found
