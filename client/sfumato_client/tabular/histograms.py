"""Noisy histograms of a table's columns by the Gaussian mechanism, and tables whose columns follow them.

A patient has one row, which adds one to one bin of each of C columns: the counts side by side have L2 sensitivity
sqrt(C) under add/remove (Dwork and Roth 2014, A.1). All else here is post-processing of what was released.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfumato_client.tabular.coding import MISSING, Cells
from sfumato_client.tabular.schema import AnyColumn, CategoricalColumn, TableSchema
from sfumato_client.tabular.shares import Float64, Ints, estimate_shares, expected_shares
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import PublishedStream

MOST_BINS = 20  # of a column with more values than that
_FEWEST_SHAPED = 6  # bins of ordered values that are taken to have a shape


class Bins:
    """A column's public bins: equal parts of its values in order, or its levels; an empty cell has one of its own."""

    def __init__(self, column: AnyColumn) -> None:
        self.ordered = not isinstance(column, CategoricalColumn)
        self.cells, self.missing = column.cells, column.missing
        self.values = min(column.cells, MOST_BINS) if self.ordered else column.cells
        self.count = self.values + self.missing

    def of(self, cells: Ints) -> Ints:
        """[N] -> bins [N]."""
        return np.where(cells == MISSING, self.values, cells * self.values // self.cells)

    def cells_at(self, places: Float64) -> Ints:
        """Cells [N] of places [N] in [0, count): a bin's number and how far through the bin."""
        bins = np.minimum(places.astype(np.int64), self.values - 1)
        first, beyond = (-(-side * self.cells // self.values) for side in (bins, bins + 1))
        inside = np.minimum(((places - bins) * (beyond - first)).astype(np.int64), beyond - first - 1)
        return np.where(places >= self.values, MISSING, first + inside)

    def level_shares(self, shares: Float64) -> Float64:
        """Shares of bins [count] -> of levels, an empty one last."""
        of = self.of(np.array([*range(self.cells), *[MISSING] * self.missing]))
        return np.asarray((shares / np.bincount(of, minlength=self.count))[of])

    def counts(self, cells: Ints) -> Float64:
        """How many cells [N] are in each bin, [count]."""
        return np.bincount(self.of(cells), minlength=self.count).astype(np.float64)


@dataclass(frozen=True, eq=False)
class Histograms:
    """Noisy counts by column, the standard deviation of each count's noise, and their mean sum, at least 1."""

    counts: dict[str, Float64]
    deviation: float

    @property
    def patients(self) -> float:
        """A noisy number of patients."""
        return max(1.0, float(np.mean([own.sum() for own in self.counts.values()])))

    def shares(self, name: str, column: AnyColumn, prior: Float64 | None = None) -> Float64:
        """Shares of a column's bins; near `prior`, or what is usual for such columns, by as much as the noise hides."""
        bins, noisy, deviation = Bins(column), self.counts[name] / self.patients, self.deviation / self.patients
        if bins.ordered and bins.values >= _FEWEST_SHAPED:
            return expected_shares(noisy, deviation, bins.missing, prior)
        start = np.full(bins.count, 1.0 / bins.count) if prior is None else prior
        return estimate_shares(noisy, deviation, start, [bins.ordered])


def release_histograms(
    columns: dict[str, AnyColumn], cells: Cells, noise_multiplier: float, recorder: NoiseRecorder
) -> Histograms:
    """Noisy histograms of cells [P, C], one row a patient, charged as one `GaussianRelease`."""
    exact = [Bins(column).counts(own) for column, own in zip(columns.values(), cells.T, strict=True)]
    sensitivity = float(np.sqrt(len(columns)))
    noisy = recorder.gaussian(np.concatenate(exact), sensitivity, noise_multiplier)
    parts = np.split(noisy, np.cumsum([len(own) for own in exact])[:-1])
    return Histograms(dict(zip(columns, parts, strict=True)), noise_multiplier * sensitivity)


def release_shares(schema: TableSchema, cells: Cells, recorder: NoiseRecorder) -> tuple[Histograms, dict[str, Float64]]:
    """Noisy histograms of all columns of a resolved schema, and the shares that they show, of cells [P, C]."""
    noise = schema.histograms.noise_multiplier
    assert noise is not None, "a resolved schema has its noise"
    histograms = release_histograms(schema.columns, cells, noise, recorder)
    return histograms, {name: histograms.shares(name, column) for name, column in schema.columns.items()}


def whole_counts(shares: Float64, total: int) -> Ints:
    """Whole numbers of sum `total` in these shares: the largest remainders are rounded up."""
    exact = shares / shares.sum() * total
    counts = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: total - int(counts.sum())]] += 1
    return np.asarray(counts)


def refit(columns: dict[str, AnyColumn], made: Cells, shares: dict[str, Float64], published: PublishedStream) -> Cells:
    """Rows [N, C] with each column of `shares` moved to them: ordered values by a monotone map, levels by as few rows.

    Public and noisy numbers alone go in: post-processing.
    """
    moved = made.copy()
    for place, (name, column) in enumerate(columns.items()):
        if name in shares:
            moved[:, place] = _refit_column(Bins(column), made[:, place], shares[name], published)
    return moved


def refit_levels(levels: Ints, shares: Float64, published: PublishedStream) -> Ints:
    """Levels [N] of which as few as possible, drawn at random, are changed so that they come in these shares."""
    wanted = whole_counts(shares, len(levels))
    order = np.argsort(published.normal((len(levels),)).numpy(), kind="stable")
    kept = np.zeros(len(levels), dtype=bool)
    for level, most in enumerate(wanted):
        kept[order[levels[order] == level][:most]] = True
    lacking = wanted - np.bincount(levels[kept], minlength=len(wanted))
    found = levels.copy()
    found[order[~kept[order]]] = shuffle(np.repeat(np.arange(len(wanted)), lacking), published)
    return found


def shuffle(values: Ints, published: PublishedStream) -> Ints:
    """Values [N] in random order."""
    return values[np.argsort(published.normal((len(values),)).numpy(), kind="stable")]


def _refit_column(bins: Bins, cells: Ints, shares: Float64, published: PublishedStream) -> Ints:
    if not bins.ordered:
        levels = refit_levels(np.where(cells == MISSING, bins.values, cells), shares, published)
        return np.where(levels == bins.values, MISSING, levels)
    empty = (cells == MISSING).astype(np.int64)
    if bins.missing:
        empty = refit_levels(empty, np.array([1.0 - shares[-1], shares[-1]]), published)
    spread = published.integers(bins.cells, len(cells)).numpy()
    # a row that was empty and is not any more may stand anywhere
    ranked = np.lexsort((published.normal((len(cells),)).numpy(), np.where(cells == MISSING, spread, cells)))
    present = ranked[empty[ranked] == 0]
    within = shares[: bins.values]
    if within.sum() <= 0:
        within = np.full(bins.values, 1.0)
    bounds = np.concatenate([[0.0], np.cumsum(within) / within.sum()])
    heights = (np.arange(len(present)) + 0.5) / max(1, len(present))
    found = np.full(len(cells), MISSING)
    # beyond the last bin of any mass there is nothing to interpolate to
    bin_of = np.minimum(np.searchsorted(bounds, heights, side="right") - 1, np.flatnonzero(within)[-1])
    through = np.clip((heights - bounds[bin_of]) / (bounds[bin_of + 1] - bounds[bin_of]), 0.0, 1.0 - 1e-9)
    found[present] = bins.cells_at(bin_of + through)
    return found
