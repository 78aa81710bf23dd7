"""DP sampling: images drawn from the prior of a differentially private model.

Post-processing (Dwork and Roth 2014, proposition 2.1): what the model's training cost is the whole cost, so the
guarantee level is 'formal' and nothing is charged here; a model that was trained without privacy leaves 'heuristic'.
Labels come from the spectral model's noisy class shares: also post-processing.
"""

from __future__ import annotations

import torch

from sfumato_client.anonymise.candidates import CandidateSet
from sfumato_client.anonymise.contract import Job
from sfumato_common.generators.components import component_shares, labels_of
from sfumato_common.generators.sampling import sample_images
from sfumato_common.study.release import Sampling


def dp_sampling(job: Job[Sampling]) -> CandidateSet:
    """`images` images of the item's model, of components drawn by their released shares at this site."""
    item, plan = job.item, job.plan
    assert item.model != "best", "one of plan.releases names the model"
    shares = torch.as_tensor(component_shares(plan, job.models[plan.base], job.site))
    components = job.streams.published.categorical(shares, item.images).numpy()
    images = sample_images(plan, item.model, job.models[item.model], components, job.streams.published)
    return CandidateSet(item.method, item.model, plan.guarantee_level(item), images, labels_of(plan, components))
