"""A spectral model of cohorts in one's own hands: what a study does over its sites, in one call."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.spectral.fit import fit_release
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.spectral.release import Mechanism, noised_release
from sfumato_common.generators.spectral.sums import patient_weights
from sfumato_common.generators.spectral.whitening import SpectralModel
from sfumato_common.types import ByteImages

Indices = npt.NDArray[np.int64]


def fit_spectral(
    plan: PublicPlan, cohorts: Mapping[str, tuple[ByteImages, Indices, Indices]], mechanism: Mechanism
) -> SpectralModel:
    """The plan's spectral model of cohorts by site: images [N, S, S(, 3)], labels [N] and patient_index [N] of each.

    `mechanism` noises each sum (a `NoiseRecorder`'s `gaussian`); a patient of one site pays one Gaussian release with
    the noise multiplier of the plan's spectral stage.
    """
    layout, sigma, releases = Layout.of(plan), plan.spectral.noise_multiplier, {}
    for site, (images, labels, patient_index) in cohorts.items():
        releases[site] = noised_release(layout, sigma, images, labels, patient_weights(patient_index), mechanism)
    return SpectralModel(plan, fit_release(plan, releases))
