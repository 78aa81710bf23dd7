"""Images of equal pixels across all sites, found in bounded memory: a temporary database on disk (SQLite)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

_CACHE_KIB = 64 * 1024
_TABLES = """
    PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
    CREATE TABLE kept (pixels BLOB PRIMARY KEY, site TEXT, name TEXT) WITHOUT ROWID;
    CREATE TABLE left (shard INT, site TEXT, name TEXT, kept_site TEXT, kept_name TEXT, PRIMARY KEY (shard, name))
        WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Duplicate:
    """An image that was left out because the same, or nearly the same, is in the pool already, under `kept_site`."""

    site: str
    name: str
    kept_site: str
    kept_name: str


class Duplicates:
    """The first of each set of equal pixels is kept, in the order in which images are shown to it."""

    def __init__(self) -> None:
        # an empty name: a file that SQLite makes, and that is gone when the connection is
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.executescript(f"PRAGMA cache_size = -{_CACHE_KIB}; {_TABLES}")

    def is_first(self, shard: int, site: str, name: str, pixel_sha256: str) -> bool:
        """Whether no image before had these pixels; one that comes later is noted under its shard's place."""
        pixels = bytes.fromhex(pixel_sha256)
        found = self._database.execute("INSERT OR IGNORE INTO kept VALUES (?, ?, ?)", (pixels, site, name))
        if found.rowcount:
            return True
        kept = self._database.execute("SELECT site, name FROM kept WHERE pixels = ?", (pixels,)).fetchone()
        self.note(shard, Duplicate(site, name, *kept))
        return False

    def note(self, shard: int, found: Duplicate) -> None:
        """An image of the shard at that place is left out."""
        values = (shard, found.site, found.name, found.kept_site, found.kept_name)
        self._database.execute("INSERT INTO left VALUES (?, ?, ?, ?, ?)", values)

    def of(self, shard: int) -> dict[str, Duplicate]:
        """What is left out of the shard at that place, by name and in the order of names."""
        return {found.name: found for found in self._select("WHERE shard = ? ORDER BY name", (shard,))}

    def __len__(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM left").fetchone()[0])

    def __iter__(self) -> Iterator[Duplicate]:
        return self._select("ORDER BY shard, name", ())

    def _select(self, where: str, values: tuple[int, ...]) -> Iterator[Duplicate]:
        columns = "site, name, kept_site, kept_name"
        for row in self._database.execute(f"SELECT {columns} FROM left {where}", values):  # noqa: S608 - ours alone
            yield Duplicate(*row)
