"""From noisy appearance releases to a Gaussian a component: the spectral release's own fit (post-processing)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from sfumato_common.generators.appearance.feature_map import AppearanceLayout
from sfumato_common.generators.appearance.settings import AppearanceStage
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import stage_of
from sfumato_common.generators.spectral.drawn import fit_drawn
from sfumato_common.types import Arrays


def fit_appearance(
    plan: PublicPlan, releases: Mapping[str, Arrays], noise_multiplier: float | None = None
) -> dict[str, npt.NDArray[np.float32]]:
    """The arrays of `fit_drawn` from the noised release of each site that answered.

    Releases have the plan's noise, or that of `noise_multiplier`.
    """
    stage = stage_of(plan, AppearanceStage)
    sigma = stage.noise_multiplier if noise_multiplier is None else noise_multiplier
    return fit_drawn(plan, AppearanceLayout.of(plan), sigma, releases, by_site=stage.by_site)
