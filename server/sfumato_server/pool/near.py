"""Near-duplicates across all sites of a pool, and across versions: the first is kept, and kept packages come first.

What is near is said by a public measure of images alone (`metrics/alike.py`), under a limit that public images gave.
The search is exact but for crowds: prints are projected on the directions in which the pool's own prints differ most,
which makes no distance larger, and the four nearest of each k-d tree (Bentley 1975) are held against the whole prints.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from sfumato_common.imaging import decode_png, decode_pngs
from sfumato_common.metrics.alike import LIMIT, PART, Floats, distances, prints, usual_distance, views
from sfumato_server.pool.duplicates import Duplicate, Duplicates

if TYPE_CHECKING:
    from sfumato_server.pool.pool import Pool, PoolItem, PoolShard

_BLOCK = 512  # images at once
_DIRECTIONS = 16
_SAMPLED = 128  # images of each shard, by which usual distances and directions are found
_FEWEST = 16  # images of a kind, at a site or at all, that have a usual distance of their own
_CROWD = [1, 2, 3, 4]  # which neighbours in a tree are looked at
Group = tuple[str, ...]


@dataclass(frozen=True)
class Near:
    """Images that are left out: for one that is kept, or for one that an earlier version withdrew."""

    kept: Duplicates
    withdrawn: Duplicates

    def __len__(self) -> int:
        return len(self.kept) + len(self.withdrawn)


def earlier_first(shards: Sequence[PoolShard], asked: Sequence[str]) -> list[tuple[int, PoolShard]]:
    """Shards with their places, those of sites that were not `asked` first.

    A site that is asked again knows what was published. Were its images first by its name, it could put out others'.
    """
    return sorted(enumerate(shards), key=lambda one: one[1].head.site in asked)


def find_near(
    pool: Pool, asked: Sequence[str], withdrawn: Floats | None, progress: Callable[[int], None] = lambda images: None
) -> Near:
    """Look through a pool block by block: packages of earlier versions first, then those of `asked` sites, in order.

    `withdrawn` are prints [N, D] of images that may not come again: they are looked for at `asked` sites, whose
    packages are new. `progress` is told how many images were looked at since it was told last.
    """
    limit, basis = _measured(pool)
    kept, found = _Known(basis), Near(Duplicates(), Duplicates())
    gone = _Known(basis)
    if withdrawn is not None:
        gone.add([("", "")] * len(withdrawn), withdrawn, np.full(len(withdrawn), LIMIT))
    for place, shard in earlier_first(pool.shards, asked):
        is_asked = shard.head.site in asked
        items = pool.items_of(place, shard)
        while block := list(islice(items, _BLOCK)):
            own = _Block(block, np.array([limit(item) for item in block]), basis)
            left = {row: ("", "") for row in gone.near(own)} if is_asked and len(gone) else {}
            for row in left:
                found.withdrawn.note(place, Duplicate(own.items[row].site, own.items[row].facts.name, "", ""))
            for row, (site, name) in _near_in(own, kept, left).items():
                left[row] = site, name
                found.kept.note(place, Duplicate(own.items[row].site, own.items[row].facts.name, site, name))
            own.keep(kept, left)
            progress(len(block))
    return found


class _Block:
    """Some images of a shard, their views [N, 9, D] and what these are in the directions [N, 9, K]."""

    def __init__(self, items: Sequence[PoolItem], limits: npt.NDArray[np.float64], basis: Floats) -> None:
        self.items, self.limits = items, limits
        self.views = views(np.stack(decode_pngs([item.png for item in items])))
        self.points = self.views @ basis

    def pairs(self) -> Iterator[tuple[int, int]]:
        """(row, earlier row) that may be near to each other, by the directions alone, in their order."""
        own = prints(self.points)
        squares, may = (own**2).sum(1), np.zeros((len(own), len(own)), bool)
        for view in range(self.points.shape[1]):
            point = self.points[:, view]
            may |= (point**2).sum(1)[:, None] + squares - 2 * point @ own.T < LIMIT**2 + 1e-6
        rows, earlier = np.nonzero(np.tril(may, -1))
        yield from zip(rows.tolist(), earlier.tolist(), strict=True)

    def is_near(self, row: int, other: Floats, limit: float) -> bool:
        """Whether the image at `row` is near to the print `other` [D], of an image with that limit."""
        return bool(distances(self.views[row], other[None])[0] < min(limit, self.limits[row]))

    def keep(self, kept: _Known, left: dict[int, tuple[str, str]]) -> None:
        """Add all but those at the rows of `left`."""
        rows = [row for row in range(len(self.items)) if row not in left]
        if rows:
            names = [(self.items[row].site, self.items[row].facts.name) for row in rows]
            kept.add(names, prints(self.views)[rows], self.limits[rows])


class _Known:
    """Images that others are held against: their prints in a file, points in k-d trees, of which few are large."""

    def __init__(self, basis: Floats) -> None:
        self._basis, self._count = basis, 0
        self._trees: list[tuple[cKDTree, npt.NDArray[np.int64]]] = []
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            "CREATE TABLE known (id INTEGER PRIMARY KEY, site TEXT, name TEXT, near REAL, print BLOB);"
        )

    def __len__(self) -> int:
        return self._count

    def add(self, names: Sequence[tuple[str, str]], own: Floats, limits: npt.NDArray[np.float64]) -> None:
        """Images by (site, name), with their prints [N, D] and the distances below which they are near."""
        ids = np.arange(self._count, self._count + len(own))
        rows = zip(ids.tolist(), names, limits.tolist(), own.astype(np.float16), strict=True)
        self._database.execute("BEGIN")
        self._database.executemany(
            "INSERT INTO known VALUES (?, ?, ?, ?, ?)",
            ((number, site, name, limit, one.tobytes()) for number, (site, name), limit, one in rows),
        )
        self._database.execute("COMMIT")
        self._count += len(own)
        points = np.asarray(own, np.float32) @ self._basis
        # a tree is as large as all before it are together, or larger: their number grows as the logarithm does
        while self._trees and len(self._trees[-1][1]) <= len(ids):
            tree, before = self._trees.pop()
            points, ids = np.concatenate([tree.data, points]), np.concatenate([before, ids])
        self._trees.append((cKDTree(points, compact_nodes=False, balanced_tree=False), ids))

    def near(self, block: _Block) -> dict[int, tuple[str, str]]:
        """Rows of a block that are near to an image known, with the first such image's site and name."""
        found: dict[int, tuple[str, str]] = {}
        for row, ids in self._candidates(block):
            for number in ids:
                site, name, limit, data = self._database.execute(
                    "SELECT site, name, near, print FROM known WHERE id = ?", (number,)
                ).fetchone()
                if block.is_near(row, np.frombuffer(data, np.float16).astype(np.float32), limit):
                    found[row] = site, name
                    break
        return found

    def _candidates(self, block: _Block) -> list[tuple[int, list[int]]]:
        """(row, ids in their order) of images that may be near, by the directions alone."""
        count, many, wide = block.points.shape
        bound, maybe = LIMIT + 1e-5, defaultdict[int, set[int]](set)
        for tree, ids in self._trees:
            found = tree.query(block.points.reshape(count * many, wide), k=_CROWD, distance_upper_bound=bound)
            away, at = np.asarray(found[0]), np.asarray(found[1])
            where, which = np.nonzero(np.isfinite(away))
            for row, number in zip((where // many).tolist(), ids[at[where, which]].tolist(), strict=True):
                maybe[row].add(number)
        return [(row, sorted(ids)) for row, ids in sorted(maybe.items())]


def _near_in(block: _Block, kept: _Known, left: dict[int, tuple[str, str]]) -> dict[int, tuple[str, str]]:
    """Rows of a block that are near to an image kept, of an earlier block or this one; `left` are passed over."""
    found = {row: which for row, which in kept.near(block).items() if row not in left}
    own = prints(block.views)
    for row, earlier in block.pairs():
        gone = {*found, *left}
        if row not in gone and earlier not in gone and block.is_near(row, own[earlier], float(block.limits[earlier])):
            item = block.items[earlier]
            found[row] = item.site, item.facts.name
    return found


def _groups(item: PoolItem) -> tuple[Group, ...]:
    """What an image is counted with, from its own kind at its site to all images."""
    facts = item.facts
    return (item.site, facts.label, facts.model, facts.method), (facts.model, facts.method), ()


def _measured(pool: Pool) -> tuple[Callable[[PoolItem], float], Floats]:
    """The limit of an image by its kind, and the directions [D, K] in which the pool's prints differ most."""
    sample: dict[Group, list[Floats]] = defaultdict(list)
    for place, shard in enumerate(pool.shards):
        for item in islice(pool.items_of(place, shard), _SAMPLED):
            own = prints(views(decode_png(item.png)[None]))[0]
            for group in _groups(item):
                sample[group].append(own)
    usual = {group: usual_distance(np.array(own)) for group, own in sample.items() if len(own) >= _FEWEST or not group}
    limits = {group: min(LIMIT, PART * distance) for group, distance in usual.items()}
    every = np.array(sample[()])
    _, directions = np.linalg.eigh(np.cov(every, rowvar=False)) if len(every) > 1 else (None, np.eye(every.shape[1]))

    def limit(item: PoolItem) -> float:
        return next(limits[group] for group in _groups(item) if group in limits)

    return limit, np.asarray(directions[:, ::-1][:, :_DIRECTIONS], np.float32)
