"""What travels in a StyleGAN2 stage: spectral model and both networks to a site; back, the change of what it trains."""

from __future__ import annotations

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.schemas import update_schema, weights_schema
from sfumato_common.generators.settings import stage_of
from sfumato_common.generators.spectral.schemas import released as spectral
from sfumato_common.generators.stylegan2.networks import DISCRIMINATOR, GENERATOR, NETWORKS
from sfumato_common.generators.stylegan2.settings import StyleGan2Stage
from sfumato_common.types import Schema


def sent(plan: PublicPlan) -> Schema:
    """The spectral model, whose shares say what is drawn, and both networks."""
    return {**spectral(plan), **weights_schema(plan, NETWORKS)}


def returned(plan: PublicPlan) -> Schema:
    """The change of the discriminator's weights, or of both networks'."""
    both = stage_of(plan, StyleGan2Stage).sites_train == "both"
    return update_schema(plan, NETWORKS if both else {DISCRIMINATOR: NETWORKS[DISCRIMINATOR]})


def released(plan: PublicPlan) -> Schema:
    """The spectral model and the generator."""
    return {**spectral(plan), **weights_schema(plan, {GENERATOR: NETWORKS[GENERATOR]})}
