"""The ledger's SQLite file: a rollback journal, full synchronisation, one writer, and rows that never change."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from sfumato_client.ledger.chain import Row
from sfumato_common.errors import BusyError, LedgerError, NoRoomError
from sfumato_common.files import NO_ROOM, room_errors, sync_folder

_WAIT_S = 600.0  # another process may be accounting while it holds the lock: seconds, on a slow machine minutes
_TABLES = (
    "CREATE TABLE entries (number INTEGER PRIMARY KEY, body TEXT NOT NULL, hash TEXT NOT NULL)",
    "CREATE TRIGGER no_change BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'append-only'); END",
    "CREATE TRIGGER no_removal BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'append-only'); END",
)


def now() -> str:
    """The time of a row, and of what is noted beside the ledger: UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def connect(path: Path) -> sqlite3.Connection:
    """The file at `path`, made (for its owner only) when it is not there. Raises LedgerError or BusyError."""
    try:
        with room_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            sync_folder(path.parent)
    except OSError as error:
        raise LedgerError(f"the privacy ledger cannot be opened ({type(error).__name__}); check the folder") from None
    with sqlite_errors():
        connection = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)
        try:
            # EXTRA also flushes the folder after the journal is gone: the commit itself survives a power cut
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("PRAGMA synchronous = EXTRA")
        except BaseException:
            connection.close()
            raise
    return connection


def begin(connection: sqlite3.Connection, genesis: Row) -> None:
    """Make the table with its first row, unless it is there."""
    if _has_table(connection):
        return
    with transaction(connection):
        if not _has_table(connection):  # another process may have begun it while this one waited for the lock
            for statement in _TABLES:
                connection.execute(statement)
            insert(connection, genesis)


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Hold the one writer's lock; commit at the end, durable when it returns, or leave everything as it was."""
    with sqlite_errors():
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def insert(connection: sqlite3.Connection, row: Row) -> None:
    """Add a row; call it inside `transaction`."""
    connection.execute("INSERT INTO entries VALUES (?, ?, ?)", (row.number, row.body, row.hash))


def read_rows(connection: sqlite3.Connection) -> list[Row]:
    """Every row in order, not yet verified."""
    with sqlite_errors():
        return [Row(*values) for values in connection.execute("SELECT number, body, hash FROM entries ORDER BY number")]


@contextlib.contextmanager
def sqlite_errors() -> Iterator[None]:
    """SQLite's errors as ours: busy, a full disk, or a ledger that cannot be written or trusted."""
    try:
        yield
    except sqlite3.OperationalError as error:
        # the low byte is the primary code (https://sqlite.org/rescode.html)
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise BusyError("another process holds the privacy ledger; try again when it has finished") from None
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL:
            raise NoRoomError(NO_ROOM) from None
        raise LedgerError(f"the privacy ledger cannot be used ({error.sqlite_errorname}); check the disk") from None
    except sqlite3.ProgrammingError:
        raise LedgerError("the privacy ledger was closed before it was used; keep its 'with' block open") from None
    except sqlite3.DatabaseError as error:
        raise LedgerError(f"the privacy ledger is damaged ({error.sqlite_errorname}); restore a backup") from None


def _has_table(connection: sqlite3.Connection) -> bool:
    with sqlite_errors():
        return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'entries'").fetchone())
