"""Images of equal pixels across all sites, found in bounded memory: a temporary database on disk (SQLite)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sfumato_common.package.manifest import ManifestImage

_CACHE_KIB = 128 * 1024
_TABLES = """
    PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
    CREATE TABLE kept (pixels BLOB PRIMARY KEY, shard INT, name TEXT) WITHOUT ROWID;
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
        self._sites: dict[int, str] = {}

    def add(self, shard: int, site: str, entries: Sequence[ManifestImage]) -> set[str]:
        """Show it a shard's images; the names of those whose pixels came before, noted under its shard's place."""
        self._sites[shard] = site
        shown = [(bytes.fromhex(entry.pixel_sha256), shard, entry.name) for entry in entries]
        # by their pixels: neighbours in the table, of equal ones the first by name first
        self._database.execute("BEGIN")
        added = self._database.executemany("INSERT OR IGNORE INTO kept VALUES (?, ?, ?)", sorted(shown)).rowcount
        twice = set() if added == len(shown) else self._note_all(shown)
        self._database.execute("COMMIT")
        return twice

    def _note_all(self, shown: Sequence[tuple[bytes, int, str]]) -> set[str]:
        twice = set()
        for pixels, shard, name in shown:
            kept = self._database.execute("SELECT shard, name FROM kept WHERE pixels = ?", (pixels,)).fetchone()
            if kept != (shard, name):
                self.note(shard, Duplicate(self._sites[shard], name, self._sites[kept[0]], kept[1]))
                twice.add(name)
        return twice

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
