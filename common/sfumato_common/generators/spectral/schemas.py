"""What travels in a spectral stage: nothing to the sites, noised sums back, the fitted model in the end."""

from __future__ import annotations

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.spectral.moment_layout import MomentLayout
from sfumato_common.types import ArraySpec, Schema


def sent(plan: PublicPlan) -> Schema:
    """Nothing: sites work from the plan alone."""
    return {}


def returned(plan: PublicPlan) -> Schema:
    """The noised sums of one site (see `spectral.release`)."""
    return moments_returned(Layout.of(plan))


def moments_returned(layout: MomentLayout) -> Schema:
    """The noised sums of one site, of any features (see `release.noised_moments`)."""
    norms = {"norms": ArraySpec("float32", (layout.norms, 2))} if layout.charged_radii else {}
    return norms | {
        "centre": ArraySpec("float32", (1 + layout.features,)),
        "sums": ArraySpec("float32", (layout.classes, 1 + layout.features)),
        "moments": ArraySpec("float32", (layout.classes, layout.pairs)),
    }


def released(plan: PublicPlan) -> Schema:
    """The Gaussian model of each component (see `spectral.fit`), which every other generator starts from."""
    from sfumato_common.generators.components import component_count

    k, d = component_count(plan), Layout.of(plan).features
    return gaussians("spectral", k, d, tail=(k,))


def gaussians(kind: str, k: int, d: int, **more: tuple[int, ...]) -> Schema:
    """K components' shares and Gaussians of d features, and their factors of signal alone, as arrays of that `kind`."""
    shapes = {"shares": (k,), "mean": (k, d), "factor": (k, d, d), **more, "signal": (k, d, d)}
    return {
        # all shares go to all sites: they are few numbers, and add up to 1
        f"{kind}/{name}": ArraySpec("float32", shape, by_component=name != "shares")
        for name, shape in shapes.items()
    }
