"""A ledger without a home folder: what a policy says of a site's ledger stands in its first row.

The book, its chain and its head, the accountant and the admission are a site's own. Two keys lie beside the file: one
signs certificates, the other one makes pseudonyms of patients' identifiers.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from sfumato_client.ledger.book import Ledger
from sfumato_client.ledger.chain import FORMAT, next_row
from sfumato_client.ledger.head import has_begun
from sfumato_client.ledger.storage import begin, connect, now, read_rows
from sfumato_common.accounting.members import Members, key_name, pseudonym
from sfumato_common.crypto.signatures import load_private_key, private_pem, public_pem, sign
from sfumato_common.errors import ConfigError, DataError, LedgerError
from sfumato_common.files import write_atomic
from sfumato_common.strict import Strict, parse
from sfumato_common.study.plan import Name
from sfumato_common.study.policy import Budget

_KEY_BYTES = 32


class LedgerTerms(Strict):
    """What a ledger is about, for good: its owner's name, the most that a patient may ever pay, and to whom that is."""

    site: Name
    budget: Budget
    unit: Literal["patient"] = "patient"
    adjacency: Literal["add-remove"] = "add-remove"


@dataclass(frozen=True)
class LedgerKeys:
    """`signing` signs certificates; `patients` is the secret that pseudonyms are keyed by."""

    signing: Ed25519PrivateKey = field(repr=False)
    patients: bytes = field(repr=False)

    @property
    def public(self) -> bytes:
        """PEM of the key that certificates are checked by."""
        return public_pem(self.signing.public_key())

    def sign(self, certificate: bytes) -> bytes:
        """Signature of a run's certificate."""
        return sign(self.signing, "run", certificate)

    def members(self, train: Iterable[str], holdout: Iterable[str] = ()) -> Members:
        """Patients by their identifiers, as a charge takes them: the ledger sees pseudonyms alone.

        Raises DataError for a patient who is in both, or has no identifier.
        """
        cohorts = [frozenset(train), frozenset(holdout)]
        if any(not isinstance(name, str) or not name.strip() for names in cohorts for name in names):
            raise DataError("a patient has no identifier; give every record the identifier of its patient, as a word")
        if cohorts[0] & cohorts[1]:
            raise DataError("a patient is in 'train' and in 'holdout'; a patient is in one cohort")
        hidden = (frozenset(pseudonym(self.patients, name) for name in names) for names in cohorts)
        return Members(key_name(self.patients), *hidden)


def create_ledger(path: Path, *, site: str, epsilon: float, delta: float) -> None:
    """Begin a ledger at `path` with its keys beside it: PATH.signing.pem and PATH.patients.key, its owner's alone.

    No patient of it is ever charged more than `epsilon` at `delta` (add/remove of one patient with all records).
    Raises ConfigError for terms that mean nothing, LedgerError where a ledger was begun before.
    """
    terms = parse({"site": site, "budget": {"epsilon": epsilon, "delta": delta}}, LedgerTerms, "a ledger's terms")
    signing, patients = _key_paths(path)
    if has_begun(path):
        raise LedgerError(f"'{path.name}' was begun before; open it, or choose another name")
    if signing.exists() or patients.exists():
        raise LedgerError(
            f"keys of a ledger '{path.name}' lie here without it: restore it from a backup, or move them away "
            "if it never "
            "began, and begin again"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(signing, private_pem(Ed25519PrivateKey.generate()), mode=0o600)
    write_atomic(patients, secrets.token_hex(_KEY_BYTES).encode(), mode=0o600)
    fields = {"format": FORMAT, "site": terms.site, "at": now(), "terms": terms.model_dump(mode="json")}
    connection = connect(path)
    try:
        begin(connection, next_row([], "genesis", fields))
    finally:
        connection.close()
    open_ledger(path).close()  # writes the head


def open_ledger(path: Path) -> Ledger:
    """The ledger that `create_ledger` began at `path`, verified, under the budget of its first row.

    Raises LedgerError where there is none, where it was altered, or where it is a site's own, whose budget is its
    policy's.
    """
    if not has_begun(path):
        raise LedgerError(f"there is no ledger '{path.name}'; create it first, and check the path")
    if not path.exists():
        raise LedgerError("the privacy ledger is gone but its head is there; restore it from a backup")
    connection = connect(path)
    try:
        rows = read_rows(connection)
    finally:
        connection.close()
    try:
        terms = LedgerTerms.model_validate(rows[0].value["terms"])
    except (IndexError, KeyError, ValueError, ValidationError):
        raise LedgerError(f"'{path.name}' has no terms in its first row; a site's own is opened by its home") from None
    return Ledger.open(path, terms.budget, site=terms.site)


def read_keys(path: Path) -> LedgerKeys:
    """The keys beside the ledger at `path`. Raises ConfigError where they are missing or damaged."""
    signing, patients = _key_paths(path)
    try:
        pem, key = signing.read_bytes(), bytes.fromhex(patients.read_text().strip())
    except (OSError, ValueError):
        raise ConfigError(f"the keys beside '{path.name}' cannot be read; restore them from its backup") from None
    if len(key) != _KEY_BYTES:
        raise ConfigError(f"'{patients.name}' is damaged; restore it and the ledger from one backup")
    return LedgerKeys(load_private_key(pem), key)


def _key_paths(ledger: Path) -> tuple[Path, Path]:
    return ledger.with_name(ledger.name + ".signing.pem"), ledger.with_name(ledger.name + ".patients.key")
