"""Symmetric matrices by blocks and by Lanczos give what whole decompositions give."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato_common.generators.spectral import blocks


def _matrix(sizes: list[int], seed: int = 0) -> np.ndarray:
    """Block diagonal, the indices of the blocks mixed."""
    rng = np.random.default_rng(seed)
    order, whole, at = rng.permutation(sum(sizes)), np.zeros((sum(sizes),) * 2), 0
    for size in sizes:
        part = rng.standard_normal((size, size)) / np.sqrt(size)
        inside = order[at : at + size]
        whole[np.ix_(inside, inside)] = part + part.T
        at += size
    return whole


def test_blocks_are_found_wherever_they_stand() -> None:
    found = blocks.blocks_of(_matrix([5, 1, 9, 3]))
    assert sorted(map(len, found)) == [1, 3, 5, 9]
    assert sorted(np.concatenate(found)) == list(range(18))
    joined = blocks.blocks_of(_matrix([5, 1, 9, 3]), np.ones((18, 18)))
    assert [len(block) for block in joined] == [18]


@pytest.mark.parametrize("sizes", [[30, 1, 12], [450, 5]])
def test_by_blocks_is_the_function_of_the_whole(sizes: list[int]) -> None:
    matrix = _matrix(sizes) + 5.0 * np.eye(sum(sizes))
    np.testing.assert_allclose(blocks.by_blocks(matrix, np.linalg.inv), np.linalg.inv(matrix), atol=1e-12)


@pytest.mark.parametrize("size", [50, 450])
def test_extreme_eigenvalues_are_those_of_the_whole(size: int) -> None:
    matrix = _matrix([size])
    values, vectors = np.linalg.eigh(matrix)
    assert blocks.largest_magnitude(matrix) == pytest.approx(np.abs(values).max(), rel=1e-6)
    edge = float(np.sort(np.abs(values))[-7])
    found, directions = blocks.pairs_beyond(matrix, edge * (1 + 1e-9))
    assert len(found) == 6
    inside = np.abs(values) > edge * (1 + 1e-9)
    expected = (vectors[:, inside] * values[inside]) @ vectors[:, inside].T
    np.testing.assert_allclose((directions * found) @ directions.T, expected, atol=1e-8)


@pytest.mark.parametrize("size", [50, 450])
@pytest.mark.parametrize("floor", [-3.0, -2.5, 0.5])
def test_raised_eigenvalues_are_at_the_floor(size: int, floor: float) -> None:
    matrix = _matrix([size])
    values, vectors = np.linalg.eigh(matrix)
    expected = (vectors * np.maximum(values, floor)) @ vectors.T
    np.testing.assert_allclose(blocks.raise_eigenvalues(matrix, floor), expected, atol=1e-8)
    assert blocks.is_above(matrix, floor) == bool(values[0] > floor)
