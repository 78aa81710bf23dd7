"""Tables from a tree of noisy two-way marginals, as MST (McKenna, Miklau and Sheldon 2021, arXiv 2108.04978).

Three adaptive Gaussian mechanisms, of which each patient has one row of C columns, under add/remove:

1. histograms of all columns, L2 sensitivity sqrt(C) (`histograms.py`);
2. where the tree is chosen: for each of the P = C (C - 1) / 2 pairs the L1 distance of its two-way counts from those
   that step 1 expects of independent columns. What step 1 said is fixed, and a patient moves one count by one, so each
   distance moves by 1 at most (triangle inequality): sensitivity sqrt(P). MST chooses edges by the exponential
   mechanism instead; with noisy scores all three are one Gaussian mechanism to the accountant;
3. two-way counts of the tree's C - 1 edges, of which a patient moves one count each by one: sensitivity sqrt(C - 1).

Their parameters mu add up in squares, adaptively too (Dong, Roth and Su 2022, Corollary 3.3). A replaced patient moves
each by twice as much at most. The rest is post-processing: two-ways are made consistent with the histograms by
iterative proportional fitting (Deming and Stephan 1940), and rows are drawn down the tree.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from sfumato_client.tabular.coding import Cells
from sfumato_client.tabular.histograms import Bins, Histograms, refit, release_shares, shuffle
from sfumato_client.tabular.schema import TableSchema
from sfumato_client.tabular.shares import Float64, Ints, estimate_shares
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import PublishedStream

Edge = tuple[int, int]
_FITTING_ROUNDS, _TINY = 50, 1e-12
_GRID = 2.0**16


def tree_cells(schema: TableSchema, cells: Cells, published: PublishedStream, recorder: NoiseRecorder) -> Cells:
    """Cells [rows, C] of a resolved schema's table from those of training patients [P, C]; what ran is in `recorder`.

    Whatever the number of patients is, the same mechanisms run.
    """
    columns = schema.columns
    histograms, shares = release_shares(schema, cells, recorder)
    binned = np.stack([Bins(column).of(own) for column, own in zip(columns.values(), cells.T, strict=True)], axis=1)
    tables = _Tables(schema, list(shares.values()), [Bins(column).ordered for column in columns.values()], histograms)
    edges = tables.star() if schema.tree.star is not None else tables.chosen(binned, recorder)
    two_ways = tables.released(binned, edges, recorder)
    drawn = _draw_down(schema.rows, edges, two_ways, tables, published)
    made = np.stack(
        [Bins(column).cells_at(_spread(own, published)) for column, own in zip(columns.values(), drawn.T, strict=True)],
        axis=1,
    )
    return refit(columns, made, shares, published)


class _Tables:
    """Two-way counts of groups of bins; groups follow from released shares."""

    def __init__(self, schema: TableSchema, shares: list[Float64], ordered: list[bool], histograms: Histograms) -> None:
        assert schema.tree.groups is not None, "a resolved schema has its groups"
        self._schema, self.shares, self._ordered = schema, shares, ordered
        self._patients, self._groups = histograms.patients, schema.tree.groups

    def star(self) -> list[Edge]:
        """Edges from the one public column to all others."""
        names = list(self._schema.columns)
        root = names.index(str(self._schema.tree.star))
        return [(root, place) for place in range(len(names)) if place != root]

    def chosen(self, binned: Ints, recorder: NoiseRecorder) -> list[Edge]:
        """A spanning tree of the largest noisy scores (Prim 1957), edges from the root on, parents first."""
        pairs = list(combinations(range(binned.shape[1]), 2))
        scores = np.array([self._score(binned, pair) for pair in pairs])
        noise = self._schema.tree.score_noise
        assert noise is not None, "a resolved schema has its noise"
        noisy = dict(zip(pairs, recorder.gaussian(scores, float(np.sqrt(len(pairs))), noise), strict=True))
        inside, edges = [0], []
        while len(inside) < binned.shape[1]:
            outside = [place for place in range(binned.shape[1]) if place not in inside]
            ways = [(noisy[min(a, b), max(a, b)], a, b) for a in inside for b in outside]
            _, parent, child = max(ways)
            inside.append(child)
            edges.append((parent, child))
        return edges

    def released(self, binned: Ints, edges: list[Edge], recorder: NoiseRecorder) -> list[Float64]:
        """For each edge, shares [A, B] of groups of parent and child, from noisy counts."""
        noise, exact = self._schema.tree.noise_multiplier, [self._counts(binned, edge) for edge in edges]
        assert noise is not None, "a resolved schema has its noise"
        sensitivity = float(np.sqrt(len(edges)))
        noisy = recorder.gaussian(np.concatenate([own.ravel() for own in exact]), sensitivity, noise)
        parts = np.split(noisy, np.cumsum([own.size for own in exact])[:-1])
        deviation = noise * sensitivity / self._patients
        return [
            _fit(
                part.reshape(own.shape) / self._patients,
                deviation,
                self.margins(edge),
                [self._ordered[p] for p in edge],
            )
            for part, own, edge in zip(parts, exact, edges, strict=True)
        ]

    def groups(self, edge: Edge) -> tuple[Ints, Ints]:
        """The group of every bin of an edge's two columns; one with few bins leaves the other more."""
        first, second = (self.shares[place] for place in edge)
        most = self._groups
        if len(first) < most:
            wide = (len(first), most * most // len(first))
        elif len(second) < most:
            wide = (most * most // len(second), len(second))
        else:
            wide = (most, most)
        one, other = (
            group_bins(self.shares[place], count, self._ordered[place]) for place, count in zip(edge, wide, strict=True)
        )
        return one, other

    def margins(self, edge: Edge) -> tuple[Float64, Float64]:
        """Shares of the groups of an edge's two columns."""
        one, other = (
            np.bincount(groups, weights=self.shares[place]).astype(np.float64)
            for groups, place in zip(self.groups(edge), edge, strict=True)
        )
        return one, other

    def _counts(self, binned: Ints, edge: Edge) -> Float64:
        first, second = (groups[binned[:, place]] for groups, place in zip(self.groups(edge), edge, strict=True))
        shape = [int(groups.max()) + 1 for groups in self.groups(edge)]
        return np.bincount(first * shape[1] + second, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)

    def _score(self, binned: Ints, edge: Edge) -> float:
        expected = self._patients * np.outer(*self.margins(edge))
        # on a grid sums are exact, and the triangle inequality holds to the last bit
        return float(np.abs(self._counts(binned, edge) - np.rint(expected * _GRID) / _GRID).sum())


def group_bins(shares: Float64, most: int, ordered: bool) -> Ints:
    """Groups [B], 0 .. at most `most` - 1, each used: neighbours of about equal share; or the rarest levels as one."""
    if len(shares) <= most:
        return np.arange(len(shares))
    if ordered:
        middle = np.cumsum(shares) - shares / 2.0
        found = np.minimum((middle * most).astype(np.int64), most - 1)
    else:
        rank = np.argsort(np.argsort(-shares, kind="stable"), kind="stable")
        found = np.minimum(rank, most - 1)
    return np.unique(found, return_inverse=True)[1].astype(np.int64)


def _fit(noisy: Float64, deviation: float, margins: tuple[Float64, Float64], ordered: list[bool]) -> Float64:
    """Shares [A, B] near noisy ones with these margins; independent columns where noise hides all else."""
    first, second = margins
    prior = np.outer(first, second)
    found = estimate_shares(noisy, deviation, prior, ordered)
    # no conditional may be without mass
    found = found + 1e-3 * prior + _TINY
    for _ in range(_FITTING_ROUNDS):
        found = found * (first / np.maximum(found.sum(axis=1), _TINY))[:, None]
        found = found * (second / np.maximum(found.sum(axis=0), _TINY))[None, :]
    return found


def _draw_down(
    rows: int, edges: list[Edge], two_ways: list[Float64], tables: _Tables, published: PublishedStream
) -> Ints:
    """Bins [rows, C]: the root's by its shares, every child's group by its parent's, and its bin within the group."""
    drawn = np.zeros((rows, len(tables.shares)), dtype=np.int64)
    root = edges[0][0]
    everywhere = np.zeros(rows, dtype=np.int64)
    drawn[:, root] = _draw_evenly(tables.shares[root][None], everywhere, published)
    for (parent, child), shares in zip(edges, two_ways, strict=True):
        above, below = tables.groups((parent, child))
        within = tables.shares[child] + _TINY
        bins = shares[:, below] * (within / np.bincount(below, weights=within)[below])
        drawn[:, child] = _draw_evenly(bins, above[drawn[:, parent]], published)
    return drawn


def _draw_evenly(weights: Float64, under: Ints, published: PublishedStream) -> Ints:
    """One of K for every row [N] by weights [G, K] of its group, as evenly as rows allow (systematic sampling)."""
    found = np.zeros(len(under), dtype=np.int64)
    for group, own in enumerate(weights):
        rows = shuffle(np.flatnonzero(under == group), published)
        places = (np.arange(len(rows)) + published.uniform64(1)) / max(1, len(rows)) * own.sum()
        found[rows] = np.minimum(np.searchsorted(np.cumsum(own), places, side="right"), len(own) - 1)
    return found


def _spread(bins: Ints, published: PublishedStream) -> Float64:
    return bins + published.uniform64(len(bins))
