"""Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020) by nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

Float64 = npt.NDArray[np.float64]
Table = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Neighbourhood:
    """What balls to the k-th neighbour say of a synthetic set.

    `precision`: share of synthetic records inside some real record's ball. `recall`: share of real records inside some
    synthetic record's ball. `density`: how many real balls hold a synthetic record, over k; above 1 in dense regions.
    `coverage`: share of real balls that hold a synthetic record; copies of few real records cover few.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def neighbourhood(real: Float64, synthetic: Float64, k: int = 5) -> Neighbourhood:
    """Compare features [N, d] of real and [M, d] of synthetic records; O(N^2 + M^2 + N M) memory.

    Scale matters: give features whose units are comparable. Raises ValueError when a set has not more than k records.
    """
    return neighbourhood_of(*balls(real, synthetic, k), k)


def balls(real: Float64, synthetic: Float64, k: int = 5) -> tuple[Table, Table]:
    """Which synthetic record is in which real one's ball, and which real one in which synthetic one's, both [N, M].

    Raises ValueError as `neighbourhood`.
    """
    if min(len(real), len(synthetic)) <= k:
        raise ValueError(f"neighbourhoods to the {k}-th neighbour need more than {k} records in each set")
    real_radius, synthetic_radius = _radii(real, k), _radii(synthetic, k)
    between = cdist(real, synthetic)
    return between < real_radius[:, None], between < synthetic_radius


def neighbourhood_of(in_real: Table, in_synthetic: Table, k: int = 5) -> Neighbourhood:
    """The figures of `balls`, or of some of their real rows."""
    return Neighbourhood(
        precision=float(in_real.any(axis=0).mean()),
        recall=float(in_synthetic.any(axis=1).mean()),
        density=float(in_real.sum(axis=0).mean() / k),
        coverage=float(in_real.any(axis=1).mean()),
    )


def _radii(points: Float64, k: int) -> Float64:
    # the nearest of all is the point itself
    return np.asarray(np.partition(cdist(points, points), k, axis=1)[:, k])
