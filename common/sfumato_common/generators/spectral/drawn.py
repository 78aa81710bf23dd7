"""The spectral release's fit for models that are only drawn from: a small site's classes are those of all sites."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.spectral.fit import fit_components
from sfumato_common.generators.spectral.moment_layout import MomentLayout
from sfumato_common.types import Arrays

# An entry shows where it is this share of its noise.
_SHOWN = 2.0 / 3.0


def fit_drawn(
    plan: PublicPlan, layout: MomentLayout, sigma: float, releases: Mapping[str, Arrays], *, by_site: bool
) -> dict[str, npt.NDArray[np.float32]]:
    """shares [G], mean [G, d], factor and signal [G, d, d] from the noised release of each site that answered."""
    fewest = fewest_patients(layout, sigma)
    fitted = fit_components(plan, layout, sigma, releases, by_site=by_site, fewest=fewest).arrays(layout)
    # nothing lies above these features' band
    del fitted["tail"]
    return fitted


def fewest_patients(layout: MomentLayout, sigma: float) -> float:
    """How many patients a site's own classes need: enough for an entry of its second moments to show beside its noise.

    On average, and by public numbers: features' variances sum to 1. Groups of entries are read together, so that less
    than the noise of one will do. Of fewer patients, moments put through exposure and texture are rings in black and
    white; such a site draws from the classes of all.
    """
    return _SHOWN * sigma * layout.features * layout.spread_radius**2 / layout.weights.moment
