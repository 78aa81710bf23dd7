"""Linear algebra of symmetric matrices that fall into blocks, which shrinkage leaves them in.

Shrinkage sets whole groups of pairs to zero, so features fall into sets that know nothing of one another, and the
eigenvectors of each are its own. Of a block that is still large only the eigenvalues that matter are computed (Lanczos
1950, as ARPACK does it); the start vector is fixed, so that the same matrix gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky
from scipy.sparse.linalg import ArpackError, eigsh

Float64 = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
# up to this size a full decomposition is the faster way
_SMALL = 400
_FIRST_PAIRS = 24
_RESTARTS = 12  # eigenvalues that lie together converge slowly: then all of them are computed


def blocks_of(*matrices: Float64) -> list[Indices]:
    """The finest partition of the indices in which every one of the symmetric `matrices` [d, d] is block diagonal."""
    linked = np.eye(len(matrices[0]), dtype=bool)
    for matrix in matrices:
        linked |= matrix != 0.0
    left, blocks = np.ones(len(linked), dtype=bool), []
    for first in range(len(linked)):
        if not left[first]:
            continue
        inside, edge = linked[first].copy(), linked[first].copy()
        while not inside.all() and edge.any():
            edge = linked[edge].any(axis=0) & ~inside
            inside |= edge
        left &= ~inside
        blocks.append(np.flatnonzero(inside))
    return blocks


def by_blocks(matrix: Float64, function: Callable[[Float64], Float64]) -> Float64:
    """`function` of every diagonal block of a symmetric matrix [d, d], put back in its place."""
    result = np.zeros_like(matrix)
    for block in blocks_of(matrix):
        inside = np.ix_(block, block)
        result[inside] = function(matrix[inside])
    return result


def largest_magnitude(matrix: Float64) -> float:
    """Largest absolute eigenvalue of a symmetric matrix [d, d]."""
    if len(matrix) <= _SMALL:
        return float(np.abs(np.linalg.eigvalsh(matrix)).max())
    try:
        # an eigenvalue's error is the square of its vector's
        found = eigsh(matrix, k=1, which="LM", v0=_start(len(matrix)), tol=1e-4, return_eigenvectors=False)
    except ArpackError:
        return float(np.abs(np.linalg.eigvalsh(matrix)).max())
    return float(np.abs(found).max())


def pairs_beyond(matrix: Float64, edge: float) -> tuple[Float64, Float64]:
    """Eigenvalues [r] of a symmetric matrix [d, d] with absolute value above `edge`, and their vectors [d, r]."""
    return _pairs(matrix, "LM", lambda values: np.abs(values) > edge)


def raise_eigenvalues(matrix: Float64, floor: float) -> Float64:
    """A symmetric matrix [d, d] with the eigenvalues below `floor` raised to it."""
    if is_above(matrix, floor):
        return matrix
    values, vectors = _pairs(matrix, "SA", lambda values: values < floor)
    return np.asarray(matrix + (vectors * (floor - values)) @ vectors.T)


def is_above(matrix: Float64, floor: float) -> bool:
    """True when all eigenvalues of a symmetric matrix [d, d] are above `floor`, by a Cholesky decomposition."""
    try:
        cholesky(matrix - floor * np.eye(len(matrix)), lower=True, check_finite=False, overwrite_a=True)
    except np.linalg.LinAlgError:
        return False
    return True


def _pairs(
    matrix: Float64, which: Literal["LM", "SA"], wanted: Callable[[Float64], npt.NDArray[np.bool_]]
) -> tuple[Float64, Float64]:
    """Eigenpairs that are `wanted`, asked for in growing numbers until one comes that is not."""
    size = len(matrix)
    count = _FIRST_PAIRS
    while size > _SMALL and count <= size // 8:
        try:
            values, vectors = eigsh(matrix, k=count, which=which, v0=_start(size), tol=1e-10, maxiter=_RESTARTS)
        except ArpackError:
            break
        inside = wanted(values)
        if not inside.all():
            return values[inside], vectors[:, inside]
        count *= 4
    values, vectors = np.linalg.eigh(matrix)
    inside = wanted(values)
    return values[inside], vectors[:, inside]


def _start(size: int) -> Float64:
    return np.random.default_rng(0).standard_normal(size)
