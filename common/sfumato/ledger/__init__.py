"""The privacy ledger for anybody's program: reserve, touch, seal, certify; docs/library.md shows each adapter at work.

It is the ledger of a Sfumato site (the same file, chain, accountant and admission), opened by a path. `opacus`,
`flower`, `nvflare` and `hooks` are adapters, a module each, imported by whoever uses them. Needs `sfumato-site`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sfumato_client.ledger.book import Ledger
from sfumato_client.ledger.check import CheckReport
from sfumato_client.ledger.check_run import check_run
from sfumato_client.ledger.runs import Run, run_certificate
from sfumato_client.ledger.standalone import LedgerKeys, create_ledger, open_ledger, read_keys
from sfumato_common.evidence.run import RunCertificate, RunStatement, open_run_certificate
from sfumato_common.files import write_atomic
from sfumato_common.mechanisms.noise import NoiseSource, SecureNoise
from sfumato_common.strict import parse
from sfumato_common.study.policy import Budget

__all__ = [
    "BLOCKS",
    "CERTIFICATE",
    "SIGNATURE",
    "CheckReport",
    "Run",
    "RunCertificate",
    "RunStatement",
    "Tool",
    "certify",
    "check_run",
    "create_ledger",
    "export_ledger",
    "open_run",
    "open_run_certificate",
    "public_key",
]

CERTIFICATE, SIGNATURE = "certificate.json", "certificate.sig"


@dataclass(frozen=True)
class Tool:
    """Whose code draws a run's noise, and what its epsilons rest on that no ledger sees, a sentence each.

    `mechanisms` is 'recorded' where the ledger's recorder draws, and 'stated' where the tool does, on its word.
    """

    name: str
    mechanisms: Literal["recorded", "stated"]
    rests_on: tuple[str, ...]


BLOCKS = Tool(
    "sfumato.ledger",
    "recorded",
    (
        "The sensitivity that the program gave each mechanism is true: one patient moves what was noised by no more.",
        "Nothing that was made from patients left the program but what was sealed under a charge.",
        "The identifiers that the run was given are those of all patients whose records it read.",
    ),
)


@contextlib.contextmanager
def open_run(
    ledger: Path,
    *,
    study: str,
    purpose: str,
    patients: Iterable[str],
    holdout: Iterable[str] = (),
    tool: Tool = BLOCKS,
    epsilon: float | None = None,
    code: str | None = None,
    noise: NoiseSource | None = None,
) -> Iterator[Run]:
    """A run over `patients` (and `holdout`), by their identifiers, of which the ledger keeps keyed hashes.

    `ledger` is a file that `create_ledger` began, or the home folder of a Sfumato site, whose own ledger it then is.
    The same words are the same run: it goes on where it stood. `epsilon` is the run's own limit, below the ledger's
    budget; `code` the sha256 of the program; `noise` a source other than ChaCha20 with a key of the operating system.
    Raises ConfigError for words that a statement does not take, LedgerError for a ledger that cannot be used.
    """
    source = noise or SecureNoise()
    words = {"study": study, "purpose": purpose, "tool": tool.name, "mechanisms": tool.mechanisms, "code": code}
    said = {**words, "noise": "test" if source.test else "secure", "rests_on": list(tool.rests_on)}
    statement = parse(said, RunStatement, "a run's statement")
    book, keys = _opened(ledger)
    with book:
        limit = None if epsilon is None else Budget(epsilon=epsilon, delta=book.budget.delta)
        yield Run(book, statement, keys.members(patients, holdout), source, limit)


def certify(ledger: Path, statement: RunStatement, folder: Path) -> RunCertificate:
    """Write the signed certificate of a run into `folder`: certificate.json and certificate.sig; LedgerError for none.

    The signature is Ed25519 over the bytes of the file, in the domain "run".
    """
    book, keys = _opened(ledger)
    with book:
        stated = run_certificate(book, statement)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / CERTIFICATE, stated.encode())
    write_atomic(folder / SIGNATURE, keys.sign(stated.encode()))
    return stated


def export_ledger(ledger: Path) -> bytes:
    """The whole ledger as one file, by which `check_run` recomputes a certificate; for its keeper alone."""
    book, _ = _opened(ledger)
    with book:
        return book.export()


def public_key(ledger: Path) -> bytes:
    """PEM of the key that this ledger's certificates are checked by."""
    return _opened_keys(ledger).public


def _opened(path: Path) -> tuple[Ledger, LedgerKeys]:
    if path.is_dir():
        from sfumato_client.site.home import SiteHome

        return SiteHome(path).open_ledger(), _opened_keys(path)
    return open_ledger(path), _opened_keys(path)


def _opened_keys(path: Path) -> LedgerKeys:
    if path.is_dir():
        from sfumato_client.site.home import SiteHome
        from sfumato_common.crypto.identity import load_identity

        home = SiteHome(path)
        return LedgerKeys(load_identity(home.identity).signing_key, home.split_key())
    return read_keys(path)
