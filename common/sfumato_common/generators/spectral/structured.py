"""Covariances that are a diagonal and a few directions: their roots and products without a dense eigensolver.

A release shows few directions beyond the power law's diagonal. With d features and r directions a product takes d^2 r
steps instead of d^3, and a square root that of r times a few nodes of a rational approximation (Hale, Higham and
Trefethen 2008, "Computing A^alpha, log(A), and related matrix functions by contour integrals", method 3), each inverted
by Woodbury's identity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from scipy.special import ellipj, ellipk

from sfumato_common.generators.spectral.moment_layout import Float64

# Below so many features, or with a direction for every fourth, dense solvers are as fast.
_DENSE, _FEW = 512, 4
_FIRST_PAIRS = 8
_LOOSE, _TIGHT, _RESTARTS = 1e-3, 1e-9, 300
_ENDS: tuple[Literal["SA"], Literal["LA"]] = ("SA", "LA")
_NEAR = 1e-6  # an eigenvalue so little below a floor may stay there
# Of the rational approximation, relative; and how far below the largest a direction is nothing but rounding. What is
# released has 24 bits, and noise that is far larger: to be more exact took three times as long in 3,072 features.
_ROOT_ERROR, _ROUNDING = 1e-7, 1e-7


@dataclass(frozen=True, eq=False)
class Structured:
    """The symmetric matrix diag(diagonal [d]) + vectors [d, r] core [r, r] vectors^T."""

    diagonal: Float64
    vectors: Float64
    core: Float64

    @classmethod
    def of_diagonal(cls, diagonal: Float64) -> Structured:
        """A diagonal matrix."""
        return cls(diagonal, np.zeros((len(diagonal), 0)), np.zeros((0, 0)))

    @cached_property
    def matrix(self) -> Float64:
        """The matrix itself [d, d]."""
        dense = (self.vectors @ self.core) @ self.vectors.T
        dense[np.diag_indices(len(dense))] += self.diagonal
        return np.asarray(dense)

    @property
    def variances(self) -> Float64:
        """Its diagonal [d]."""
        return np.asarray(
            self.diagonal + np.einsum("ir,rs,is->i", self.vectors, self.core, self.vectors, optimize=True)
        )

    @property
    def trace(self) -> float:
        """The sum of its eigenvalues."""
        return float(self.variances.sum())

    @property
    def square_sum(self) -> float:
        """The sum of their squares."""
        inner, turned = self.vectors.T @ self.vectors, self.diagonal[:, None] * self.vectors
        both = self.core @ inner
        cross = float(np.sum(self.core * (self.vectors.T @ turned)))
        return float(self.diagonal @ self.diagonal) + 2.0 * cross + float(np.sum(both * both.T))

    def scaled(self, scale: Float64) -> Structured:
        """With rows and columns times `scale` [d]."""
        return Structured(self.diagonal * scale**2, self.vectors * scale[:, None], self.core)

    def plus(self, vectors: Float64, weights: Float64) -> Structured:
        """With the directions [d, r] times weights [r] added."""
        return Structured(self.diagonal, np.hstack([self.vectors, vectors]), _blocks(self.core, np.diag(weights)))

    def with_variances(self, variances: Float64) -> Structured:
        """With another diagonal [d]."""
        return Structured(self.diagonal + variances - self.variances, self.vectors, self.core)

    def raised(self, floor: float) -> Structured:
        """With eigenvalues below `floor` lifted to it."""
        found = None
        if not self.is_dense:
            # those alone: among the many alike ones above it Lanczos would not end
            count = self._count_below(floor * (1.0 - _NEAR))
            if count == 0:
                return self
            if count * _FEW < len(self.diagonal):
                found = _lanczos(self._operator, count, "SA", _TIGHT)
        values, vectors = found or np.linalg.eigh(self.matrix)
        below = values < floor
        return self.plus(vectors[:, below], floor - values[below])

    def _count_below(self, level: float) -> int:
        """How many eigenvalues are below `level`, by Sylvester's law of inertia: of the Schur complements of a bordered
        matrix (Haynsworth 1968)."""
        weights, turn = np.linalg.eigh(self.core)
        real = np.abs(weights) > _ROUNDING * float(np.abs(weights).max(initial=0.0))
        weights, directions = weights[real], self.vectors @ turn[:, real]
        far = self.diagonal - level
        far = np.where(np.abs(far) < _ROUNDING * level, _ROUNDING * level, far)
        bordered = np.diag(1.0 / weights) + directions.T @ (directions / far[:, None])
        return int((far < 0).sum() + (np.linalg.eigvalsh(bordered) > 0).sum() - (weights > 0).sum())

    def extremes(self) -> tuple[float, float]:
        """Its least and its largest eigenvalue, to a hundredth of the largest."""
        if self.is_dense:
            values = np.linalg.eigvalsh(self.matrix)
            return float(values[0]), float(values[-1])
        least, largest = (_lanczos(self._operator, 1, side, _LOOSE) for side in _ENDS)
        if least is None or largest is None:
            values = np.linalg.eigvalsh(self.matrix)
            return float(values[0]), float(values[-1])
        return float(least[0][0]), float(largest[0][0])

    @property
    def is_dense(self) -> bool:
        """Whether a dense solver is as fast."""
        return len(self.diagonal) < _DENSE or self.vectors.shape[1] * _FEW > len(self.diagonal)

    @property
    def _operator(self) -> LinearOperator:
        def times(x: Float64) -> Float64:
            x = x.reshape(-1)
            return np.asarray(self.diagonal * x + self.vectors @ (self.core @ (self.vectors.T @ x)))

        return LinearOperator((len(self.diagonal),) * 2, matvec=times, dtype=np.float64)

    def compressed(self) -> Structured:
        """The same with a positive diagonal, and no more directions than stand out of rounding."""
        variances = self.variances
        short = self.diagonal < 0.1 * variances
        lifted = np.where(short, variances, self.diagonal)
        single = np.eye(len(short))[:, short]
        whole = Structured(lifted, self.vectors, self.core).plus(single, (self.diagonal - lifted)[short])
        # rounding is told in units of each feature's own deviation
        unit = np.sqrt(variances)
        basis, triangle = np.linalg.qr(whole.vectors / unit[:, None])
        values, turn = np.linalg.eigh(triangle @ whole.core @ triangle.T)
        kept = np.abs(values) > _ROUNDING * max(1.0, float(np.abs(values).max(initial=0.0)))
        return Structured(lifted, (basis @ turn[:, kept]) * unit[:, None], np.diag(values[kept]))

    def root(self, *, inverse: bool = False) -> Structured:
        """The symmetric square root of a positive definite matrix, or the inverse of that."""
        if self.is_dense:
            values, vectors = np.linalg.eigh(self.matrix)
            roots = np.sqrt(np.maximum(values, 1e-9 * values.max()))
            return Structured(np.zeros_like(values), vectors, np.diag(1.0 / roots if inverse else roots))
        own = self.compressed()
        unit = np.sqrt(own.variances)
        least, largest = own.scaled(1.0 / unit).extremes()
        shifts, weights = _nodes(0.5 * least * unit.min() ** 2, 1.1 * largest * unit.max() ** 2)
        diagonal, parts, cores = np.zeros_like(own.diagonal), list[Float64](), list[Float64]()
        ones = np.eye(len(own.core))
        for shift, weight in zip(shifts, weights, strict=True):
            solved = own.vectors / (own.diagonal + shift)[:, None]
            small = own.core @ np.linalg.inv(ones + own.vectors.T @ solved @ own.core)
            # weight A (A + shift)^-1 = weight (1 - shift (A + shift)^-1)
            diagonal += weight * (1.0 if inverse else own.diagonal) / (own.diagonal + shift)
            parts.append(solved)
            cores.append(weight * (-1.0 if inverse else shift) * (small + small.T) / 2.0)
        return Structured(diagonal, np.hstack(parts), _blocks(*cores))

    def _lean(self) -> Structured:
        basis, triangle = np.linalg.qr(self.vectors)
        values, turn = np.linalg.eigh(triangle @ self.core @ triangle.T)
        kept = np.abs(values) > _ROUNDING * max(float(np.abs(values).max(initial=0.0)), float(self.diagonal.max()))
        return Structured(self.diagonal, basis @ turn[:, kept], np.diag(values[kept]))

    def between(self, root: Structured) -> Structured:
        """R A R for the symmetric `root` R."""
        lean = root._lean()
        a, g, k = lean.diagonal, lean.vectors, lean.core
        inner = g * self.diagonal[:, None]
        turned = a[:, None] * self.vectors + g @ (k @ (g.T @ self.vectors))
        size = len(k)
        corner = np.zeros((2 * size, 2 * size))
        corner[:size, size:], corner[size:, :size], corner[size:, size:] = k, k.T, k @ (g.T @ inner) @ k
        vectors = np.hstack([a[:, None] * inner, g, turned])
        return Structured(a**2 * self.diagonal, vectors, _blocks(corner, self.core)).compressed()


def pairs_beyond(matrix: Float64, edge: float) -> tuple[Float64, Float64]:
    """Eigenvalues [r] of a symmetric matrix [d, d] whose size is above `edge`, and their vectors [d, r]."""
    found, pairs = None, _FIRST_PAIRS
    while len(matrix) >= _DENSE and pairs < len(matrix) // _FEW:
        found = _lanczos(matrix, pairs, "LM", _LOOSE)
        if found is None or np.abs(found[0]).min() <= edge:
            break
        found, pairs = None, 2 * pairs
    values, vectors = found or np.linalg.eigh(matrix)
    beyond = np.abs(values) > edge
    return values[beyond], vectors[:, beyond]


def spectral_radius(matrix: Float64) -> float:
    """The largest size of a symmetric matrix's eigenvalues."""
    found = _lanczos(matrix, 1, "LM", _LOOSE) if len(matrix) >= _DENSE else None
    values = np.linalg.eigvalsh(matrix) if found is None else found[0]
    return float(np.abs(values).max())


def _lanczos(
    matrix: Float64 | LinearOperator, pairs: int, which: Literal["LM", "SA", "LA"], tolerance: float
) -> tuple[Float64, Float64] | None:
    """Some eigenvalues [r] and their vectors [d, r]; None where it does not end, of a matrix of zeros for one."""
    start = _start(matrix.shape[0])
    try:
        values, vectors = eigsh(matrix, pairs, which=which, v0=start, tol=tolerance, maxiter=_RESTARTS)
    except ArpackError:
        return None
    return values, vectors


def _start(size: int) -> Float64:
    return np.random.default_rng(0).normal(size=size)


def _blocks(*cores: Float64) -> Float64:
    size = sum(len(core) for core in cores)
    joined, first = np.zeros((size, size)), 0
    for core in cores:
        joined[first : first + len(core), first : first + len(core)] = core
        first += len(core)
    return joined


def _nodes(least: float, largest: float) -> tuple[Float64, Float64]:
    """Shifts and weights with A^-1/2 = sum of weight (A + shift)^-1 for eigenvalues from `least` to `largest`."""
    count = math.ceil((math.log(largest / least) + 3.0) * -math.log(_ROOT_ERROR) / (2.0 * math.pi**2))
    parameter = 1.0 - least / largest
    period = float(ellipk(parameter))
    sine, cosine, delta, _ = ellipj((np.arange(count) + 0.5) * period / count, parameter)
    shifts = least * (sine / cosine) ** 2
    weights = 2.0 * period * math.sqrt(least) / (math.pi * count) * delta / cosine**2
    return np.asarray(shifts, dtype=np.float64), np.asarray(weights, dtype=np.float64)
