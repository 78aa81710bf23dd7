"""From noisy appearance releases to a Gaussian a component: the spectral release's own fit (post-processing)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from sfumato_common.generators.appearance.feature_map import AppearanceLayout
from sfumato_common.generators.appearance.settings import AppearanceStage
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import stage_of
from sfumato_common.generators.spectral.fit import fit_components
from sfumato_common.types import Arrays

# A site of fewer patients than this many noise deviations draws from the classes of all sites: its own moments, put
# through exposure and texture, would be black and white.
FEWEST_DEVIATIONS = 50.0


def fit_appearance(plan: PublicPlan, releases: Mapping[str, Arrays]) -> dict[str, npt.NDArray[np.float32]]:
    """shares [G], mean [G, d], factor and signal [G, d, d] from the noised release of each site that answered."""
    layout, stage = AppearanceLayout.of(plan), stage_of(plan, AppearanceStage)
    sigma = stage.noise_multiplier
    found = fit_components(plan, layout, sigma, releases, by_site=stage.by_site, fewest=FEWEST_DEVIATIONS * sigma)
    return {name: np.asarray(value, dtype=np.float32) for name, value in found.arrays(layout).items()}
