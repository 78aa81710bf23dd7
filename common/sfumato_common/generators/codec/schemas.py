"""What travels in a codec stage: the public network to the sites, noised sums back, both and the fit in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato_common.generators.base import Build
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.schemas import weights_schema
from sfumato_common.generators.spectral.schemas import gaussians, moments_returned
from sfumato_common.generators.spectral.schemas import released as spectral
from sfumato_common.types import Schema

if TYPE_CHECKING:
    from sfumato_common.codec.network import Codec

AUTOENCODER = "autoencoder"


def build_autoencoder(plan: PublicPlan) -> Codec:
    """The codec of the plan's form at its start, in which it is the cosines alone."""
    import torch

    from sfumato_common.codec.network import Codec
    from sfumato_common.generators.codec.settings import CodecStage
    from sfumato_common.generators.settings import stage_of

    return Codec(stage_of(plan, CodecStage).form, torch.Generator().manual_seed(int(plan.drawn_from[:15], 16)))


NETWORKS: dict[str, Build] = {AUTOENCODER: build_autoencoder}


def sent(plan: PublicPlan) -> Schema:
    """The network, by which a site makes codes."""
    return weights_schema(plan, NETWORKS)


def returned(plan: PublicPlan) -> Schema:
    """The noised sums of one site (see `spectral.release.noised_moments`)."""
    from sfumato_common.generators.codec.layout import CodecLayout

    return moments_returned(CodecLayout.of(plan))


def released(plan: PublicPlan) -> Schema:
    """The network, the Gaussian of each component, and the spectral model where the plan has one before."""
    from sfumato_common.generators.codec.layout import CodecLayout
    from sfumato_common.generators.components import component_count

    own = gaussians("codec", component_count(plan), CodecLayout.of(plan).features)
    return {**(spectral(plan) if plan.base == "spectral" else {}), **sent(plan), **own}
