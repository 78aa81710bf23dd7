"""How far a set's spectral moments lie from the released ones: Frechet distance in feature space, by component.

The released moments are differentially private, so this costs nothing. It sees what a classifier's figure does not: a
model that has lost its variety, or whose images are another modality's, can still carry the label.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.spectral.denoise import symmetric_root
from sfumato_common.generators.spectral.layout import Layout, features_of
from sfumato_common.types import AnyArray, Arrays

Float64 = npt.NDArray[np.float64]


def moments_distance(plan: PublicPlan, released: Arrays, images: AnyArray, components: npt.NDArray[np.int64]) -> float:
    """Distance of integer images [N, S, S(, 3)] of components [N] from the released spectral model `released`.

    Per component, weighted by its images: squared distance of the means over the released variance, plus the Bures
    distance of the covariances over the variance in those directions that the release showed (the others were filled
    from the public power law). 0 is equal; 0.25 is every standard deviation halved; 1 is no variety at all.
    """
    layout = Layout.of(plan)
    features = features_of(layout, images)
    total = 0.0
    for g in np.unique(components):
        own = features[components == g]
        factor = released["spectral/factor"][g].astype(np.float64)
        values, vectors = np.linalg.eigh(released["spectral/signal"][g].astype(np.float64))
        shown = vectors[:, values > 0.5]
        covariance = factor @ factor
        offset = own.mean(axis=0) - released["spectral/mean"][g]
        distance = float(offset @ offset) / float(np.trace(covariance))
        if len(own) > 1 and shown.shape[1]:
            wanted, found = (shown.T @ matrix @ shown for matrix in (covariance, np.atleast_2d(np.cov(own.T))))
            distance += _bures(wanted, found) / float(np.trace(wanted))
        total += distance * len(own) / len(components)
    return total


def _bures(first: Float64, second: Float64) -> float:
    """Squared Bures distance of covariances (Dowson and Landau 1982): tr(A + B - 2 (A^1/2 B A^1/2)^1/2)."""
    root = symmetric_root(first)
    middle = np.linalg.eigvalsh(root @ second @ root)
    return float(np.trace(first) + np.trace(second) - 2.0 * np.sqrt(np.maximum(middle, 0.0)).sum())
