"""Tables from a Gaussian copula (Li, Xiong and Jiang 2014, DPCopula): noisy histograms, and noisy correlations.

Two adaptive Gaussian mechanisms, of which each patient has one row of C columns, under add/remove:

1. histograms of all columns, L2 sensitivity sqrt(C) (`histograms.py`);
2. for each two of D coordinates the sum of their scores' products. Scores u follow from step 1, which is fixed, and a
   row's are scaled to a public length R, weights of coordinates included. Its products have squared length
   sum_{i<j} (u_i u_j)^2 = (R^4 - sum u_i^4) / 2, which is R^4 (1 - 1 / D) / 2 at most (Cauchy-Schwarz): sensitivity
   R^2 sqrt((1 - 1 / D) / 2).

Their parameters mu add up in squares, adaptively too (Dong, Roth and Su 2022, Corollary 3.3). A replaced patient moves
each by twice as much at most. The rest is post-processing: noise is taken out of the correlations' eigenvalues, rows
are drawn from normal vectors of these correlations, and every column follows its histogram.

That every row has one length costs its distance from the middle and keeps its direction, as in sign covariances
(Visuri, Koivunen and Oja 2000). DPCopula has Kendall's rank correlation of each pair, at an epsilon each.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri

from sfumato_client.tabular.coding import MISSING, Cells
from sfumato_client.tabular.histograms import Bins, refit, release_shares, whole_counts
from sfumato_client.tabular.schema import AnyColumn, TableSchema
from sfumato_client.tabular.shares import Float64, Ints
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import PublishedStream

_RAREST, _FARTHEST = 0.01, 3.0  # share that a level is scored as having at least; score of a value at most
_LEAST_EIGENVALUE = 1e-3
# scores are multiples of it: their sums of products are exact for 2^29 patients, and order says nothing
_GRID, _INSIDE = 2.0**12, 1.0 - 1e-9


class Scores:
    """A column as coordinates of about unit variance, by its released shares alone.

    Ordered values and the later of two levels: the mean of a standard normal within the bin. Of three levels and more,
    each one's indicator; so has an empty cell among ordered values, whose own score is then 0.
    """

    def __init__(self, column: AnyColumn, shares: Float64) -> None:
        self.bins = bins = Bins(column)
        self.shares = shares
        self.is_ranked = bins.ordered or bins.count == 2
        indicators = range(bins.count) if not self.is_ranked else range(bins.values, bins.count) if bins.ordered else ()
        parts = [_indicator(shares, level) for level in indicators]
        if self.is_ranked:
            values = bins.values if bins.ordered else bins.count
            scores, kept = _normal_scores(shares[:values])
            # what is empty has the score 0
            filled = math.sqrt(max(_RAREST, 1.0 - float(shares[values:].sum())))
            parts.insert(0, (np.pad(scores / filled, (0, bins.count - values)), kept * filled))
        self.table = np.stack([table for table, _ in parts], axis=1)
        # how much of a correlation with the underlying normal variable the scores' own has
        self.kept = np.array([kept for _, kept in parts])

    def of(self, cells: Ints) -> Float64:
        """Scores [N, width] of cells [N]."""
        return np.asarray(self.table[self.bins.of(cells)])

    def cells(self, normal: Float64) -> Ints:
        """Normal variables [N, width] -> what has the cells' order [N]: levels, or of ordered values the ranks."""
        bins, rows = self.bins, len(normal)
        if not self.is_ranked:
            levels = np.argmax(normal + ndtri(np.clip(self.shares, _RAREST, 1.0 - _RAREST)), axis=1)
            return np.where(levels == bins.values, MISSING, levels)
        order = np.argsort(normal[:, 0], kind="stable")
        found = np.empty(rows, dtype=np.int64)
        if not bins.ordered:
            found[order] = np.repeat([0, 1], whole_counts(self.shares, rows))
            return np.where(found == bins.values, MISSING, found)
        found[order] = np.arange(rows)
        if bins.missing:
            empty = whole_counts(np.array([1.0 - self.shares[-1], self.shares[-1]]), rows)[1]
            found[np.argsort(-normal[:, 1], kind="stable")[:empty]] = MISSING
        return found


def copula_cells(schema: TableSchema, cells: Cells, published: PublishedStream, recorder: NoiseRecorder) -> Cells:
    """Cells [rows, C] of a resolved schema's table from those of training patients [P, C]; what ran is in `recorder`.

    Whatever the number of patients is, the same mechanisms run.
    """
    columns = schema.columns
    histograms, shares = release_shares(schema, cells, recorder)
    codes = [Scores(column, shares[name]) for name, column in columns.items()]
    kept = np.concatenate([code.kept for code in codes])
    weights = np.concatenate(
        [
            _weights(name == schema.copula.star, len(code.kept), len(kept))
            for name, code in zip(columns, codes, strict=True)
        ]
    )
    scores = np.concatenate([code.of(own) for code, own in zip(codes, cells.T, strict=True)], axis=1)
    noisy, deviation = _release(schema, scores * weights, float(weights @ weights), recorder)
    means = without_noise(noisy / histograms.patients, deviation / histograms.patients)
    correlations = nearest_correlations(means / np.outer(weights * kept, weights * kept))
    normal = _draw(schema.rows, correlations, published)
    parts = np.split(normal, np.cumsum([len(code.kept) for code in codes])[:-1], axis=1)
    made = np.stack([code.cells(own) for code, own in zip(codes, parts, strict=True)], axis=1)
    return refit(columns, made, shares, published)


def without_noise(noisy: Float64, deviation: float) -> Float64:
    """Symmetric [D, D] of zero diagonal from noisy ones: eigenvalues above the noise's, and what else stands out.

    Noise alone has eigenvalues up to 2 sqrt(D) deviations; larger ones are shrunk to least square error (Wigner noise:
    Donoho, Gavish and Johnstone 2018), and the rest as a whole by how much longer it is than noise (James and Stein).
    """
    width = len(noisy)
    values, vectors = np.linalg.eigh(noisy)
    shrunk = np.sign(values) * np.sqrt(np.maximum(values**2 - 4.0 * width * deviation**2, 0.0))
    found = (vectors * shrunk) @ vectors.T
    rest = noisy - found
    np.fill_diagonal(rest, 0.0)
    noise = deviation**2 * width * (width - 1)
    found += rest * max(0.0, 1.0 - noise / max(float((rest**2).sum()), 1e-12))
    np.fill_diagonal(found, 0.0)
    return np.asarray(found)


def nearest_correlations(some: Float64) -> Float64:
    """Correlations [D, D] near `some` of zero diagonal: eigenvalues are made positive, and the diagonal one."""
    values, vectors = np.linalg.eigh(np.clip(some, -1.0, 1.0) + np.eye(len(some)))
    positive = (vectors * np.maximum(values, _LEAST_EIGENVALUE)) @ vectors.T
    deviations = np.sqrt(np.diag(positive))
    return np.asarray(positive / np.outer(deviations, deviations))


def _weights(is_star: bool, own: int, all_of_them: int) -> Float64:
    """Weights of a column's `own` coordinates: those of the star are told better, for little of the others.

    Together they count sqrt(D) times as much: their products' noise is D^(1/4) times less, all noise little more.
    """
    return np.full(own, math.sqrt(max(1.0, math.sqrt(all_of_them) / own)) if is_star else 1.0)


def _release(
    schema: TableSchema, scores: Float64, squared_length: float, recorder: NoiseRecorder
) -> tuple[Float64, float]:
    """Noisy sums [D, D] of products of scores [P, D], zero on the diagonal, and the deviation of their noise."""
    noise, width = schema.copula.noise_multiplier, scores.shape[1]
    assert noise is not None, "a resolved schema has its noise"
    lengths = np.maximum(np.linalg.norm(scores, axis=1), 1e-9)
    scaled = scores * (_INSIDE * math.sqrt(squared_length) / lengths)[:, None]
    scaled = np.trunc(scaled * _GRID) / _GRID
    above = np.triu_indices(width, 1)
    sensitivity = squared_length * math.sqrt((1.0 - 1.0 / width) / 2.0)
    found = np.zeros((width, width))
    found[above] = recorder.gaussian((scaled.T @ scaled)[above], sensitivity, noise)
    return found + found.T, noise * sensitivity


def _draw(rows: int, correlations: Float64, published: PublishedStream) -> Float64:
    """Normal vectors [rows, D]; where rows are many, of just these correlations."""
    width = len(correlations)
    drawn = published.normal((rows, width)).double().numpy()
    if rows > 2 * width:
        drawn = drawn - drawn.mean(axis=0)
        drawn = drawn @ _power(drawn.T @ drawn / rows, -0.5)
    return np.asarray(drawn @ _power(correlations, 0.5))


def _power(symmetric: Float64, exponent: float) -> Float64:
    values, vectors = np.linalg.eigh(symmetric)
    return np.asarray((vectors * np.maximum(values, 1e-12) ** exponent) @ vectors.T)


def _normal_scores(shares: Float64) -> tuple[Float64, float]:
    """Scores [B] of unit variance, the mean of a standard normal within each bin, and how much they keep of it."""
    within = np.full(len(shares), 1.0 / len(shares)) if shares.sum() <= 0 else shares / shares.sum()
    ends = np.concatenate([[0.0], np.cumsum(within)]).clip(0.0, 1.0)
    heights = np.exp(-0.5 * ndtri(ends.clip(1e-12, 1.0 - 1e-12)) ** 2) / math.sqrt(2.0 * math.pi)
    middles = ndtri(((ends[:-1] + ends[1:]) / 2.0).clip(1e-3, 1.0 - 1e-3))
    filled = within > 1e-6
    scores = np.where(filled, (heights[:-1] - heights[1:]) / np.where(filled, within, 1.0), middles)
    scores = scores.clip(-_FARTHEST, _FARTHEST)
    kept = math.sqrt(max(float(within @ scores**2), 1e-3))
    return scores / kept, kept


def _indicator(shares: Float64, level: int) -> tuple[Float64, float]:
    """Scores [B]: whether a bin is `level`, of unit variance, and their correlation with a normal that is cut there."""
    share = float(np.clip(shares[level], _RAREST, 1.0 - _RAREST))
    deviation = math.sqrt(share * (1.0 - share))
    kept = math.exp(-0.5 * float(ndtri(share)) ** 2) / math.sqrt(2.0 * math.pi) / deviation
    return ((np.arange(len(shares)) == level) - share) / deviation, kept
