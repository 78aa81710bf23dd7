"""DP sampling: images drawn from the prior of a differentially private model.

Post-processing (Dwork and Roth 2014, proposition 2.1): what the model's training cost is the whole cost, so the
guarantee word is 'formal' and nothing is charged here; a model that was trained without privacy leaves 'heuristic'.
Labels come from the spectral model's noisy class shares: also post-processing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch

from sfumato_client.anonymise.candidates import CandidateSet
from sfumato_common.config.plan import Plan, ReleaseItem
from sfumato_common.models.components import component_shares, labels_of
from sfumato_common.models.sampling import sample_images
from sfumato_common.types import Arrays


def dp_sampling(
    plan: Plan, site: str, item: ReleaseItem, models: Mapping[str, Arrays], generator: torch.Generator
) -> CandidateSet:
    """`item.images` images of `item.model`, of components drawn by their released shares at this site."""
    assert item.model != "best", "one of plan.releases names the model"
    shares = torch.as_tensor(component_shares(plan, models["spectral"], site))
    components = torch.multinomial(shares, item.images, replacement=True, generator=generator).numpy()
    images = sample_images(plan, item.model, models[item.model], components, generator)
    word: Literal["formal", "heuristic"] = "formal" if plan.private else "heuristic"
    return CandidateSet(item.method, item.model, word, images, labels_of(plan, components))
