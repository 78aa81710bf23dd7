"""What travels in an embedding stage: the spectral model to a site, noised sums of features back."""

from __future__ import annotations

from sfumato_common.generators.gan.schemas import released as generator
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.spectral.schemas import released as spectral
from sfumato_common.types import ArraySpec, Schema


def sent(plan: PublicPlan) -> Schema:
    """The spectral model, which features are compared with."""
    return spectral(plan)


def returned(plan: PublicPlan) -> Schema:
    """Noised class counts and sums of features."""
    from sfumato_common.generators.embedding.features import Embedding

    return {"sums": ArraySpec("float32", (len(plan.labels), 1 + Embedding(plan).length))}


def released(plan: PublicPlan) -> Schema:
    """The spectral model and the generator, as a GAN stage leaves them."""
    return generator(plan)
