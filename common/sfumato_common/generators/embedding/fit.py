"""A generator fitted to noisy mean embeddings by moment matching (Li et al. 2015; DP-MERF, Harder et al. 2021).

All of it is post-processing. What the release says is how each component's mean features differ from the spectral
model's; what it cannot tell from noise is taken as no difference, so that a release of noise alone leaves the generator
where it starts, at the spectral model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sfumato_common.encoders.encoder import Encoder
from sfumato_common.generators.components import component_count, components_of
from sfumato_common.generators.embedding.displacement import LEARNING_RATE
from sfumato_common.generators.embedding.features import COUNT_WEIGHT, FEATURE_WEIGHT, Embedding, unit_of
from sfumato_common.generators.embedding.settings import EmbeddingStage
from sfumato_common.generators.gan import networks
from sfumato_common.generators.gan.displacement import GENERATOR_BETAS
from sfumato_common.generators.gan.generator import Generator
from sfumato_common.generators.gan.w_space import draw_images, follow
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import stage_of
from sfumato_common.generators.spectral.whitening import spectral_model
from sfumato_common.generators.weights import draw_network
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.types import AnyArray, Arrays

Float64 = npt.NDArray[np.float64]

_HALF = 12  # images of a component in each of the two halves that a step compares
_COMPONENTS = 2  # at most so many a step


def targets(
    plan: PublicPlan, embedding: Embedding, sums: Mapping[str, AnyArray], sigma: float
) -> npt.NDArray[np.float32]:
    """Denoised differences [G, D] in standardised features, from noisy sums [K, 1 + D] by site.

    What all labels share is pulled towards 0, a label's own difference towards what all share, and a site's towards its
    label's, group by group, as far as the known noise demands (positive-part James and Stein 1961). A site that did not
    answer gets its labels'.
    """
    means, noise = _means(embedding, np.sum(list(sums.values()), axis=0), sigma * math.sqrt(len(sums)))
    shares = (1.0 / noise) / (1.0 / noise).sum()
    shared = _shrink(embedding, shares @ means, np.zeros(embedding.length), float(np.linalg.norm(shares * noise)))
    labels = _each(embedding, means, np.tile(shared, (len(means), 1)), noise)
    if not plan.spectral.by_site:
        return labels.astype(np.float32)
    result = np.tile(labels, (len(plan.sites), 1))
    for site, value in sums.items():
        own = components_of(plan, site, torch.arange(len(plan.labels))).numpy()
        site_means, site_noise = _means(embedding, value, sigma)
        result[own] = _each(embedding, site_means, labels, site_noise)
    return result.astype(np.float32)


def _means(embedding: Embedding, sums: AnyArray, sigma: float) -> tuple[Float64, Float64]:
    """Noisy means [K, D] in standardised features, and the standard deviation [K] of their noise."""
    # a count that drowns in its noise is taken as that noise's size, so that an absent class stays bounded
    counts = np.maximum(sums[:, 0].astype(np.float64), sigma) / COUNT_WEIGHT
    unit = unit_of(embedding) / (FEATURE_WEIGHT * counts)
    return sums[:, 1:] * unit[:, None], sigma * unit


def _each(embedding: Embedding, means: Float64, centres: Float64, noise: Float64) -> Float64:
    return np.stack([_shrink(embedding, *row) for row in zip(means, centres, noise.tolist(), strict=True)])


def _shrink(embedding: Embedding, mean: Float64, centre: Float64, noise: float) -> Float64:
    """`mean` [D], known up to `noise` a coordinate, drawn towards `centre` [D] group by group."""
    result = centre.copy()
    for start, end in pairwise(np.cumsum([0, *embedding.groups])):
        offset = (mean - centre)[start:end]
        power = max(float((offset**2).mean()), 1e-12)
        result[start:end] += offset * max(0.0, 1.0 - noise**2 / power)
    return result


def fit_generator(
    plan: PublicPlan,
    spectral: Arrays,
    sums: Mapping[str, AnyArray],
    rng: torch.Generator,
    encoder: Encoder | None = None,
    noise_multiplier: float | None = None,
) -> Generator:
    """The plan's generator after `generator_steps` of Adam towards the released embedding; moving average of weights.

    `spectral` are the released arrays; `sums` have the plan's noise, or that of `noise_multiplier`. Deterministic in
    `rng`, on one machine and number of threads.
    """
    stage = stage_of(plan, EmbeddingStage)
    embedding, model = Embedding(plan, encoder), spectral_model(plan, spectral)
    sigma = stage.noise_multiplier if noise_multiplier is None else noise_multiplier
    reference = embedding.reference(plan, spectral, torch.arange(component_count(plan)))
    wanted = torch.from_numpy(targets(plan, embedding, sums, sigma))
    start, generator, average = (draw_network(networks.generator, plan) for _ in range(3))
    optimiser = torch.optim.Adam(generator.parameters(), lr=LEARNING_RATE, betas=GENERATOR_BETAS)

    def features(network: Generator, components: Tensor, draw: torch.Generator) -> Tensor:
        images = draw_images(plan, network, model, components, TorchDraws(draw))
        return embedding.standardise(embedding.features(images), reference, components)

    for step in range(stage.generator_steps):
        picked = torch.randperm(len(wanted), generator=rng)[:_COMPONENTS]
        components = picked.repeat_interleave(2 * _HALF)
        same = torch.Generator()
        same.set_state(rng.get_state())
        # the start's images from the same latents are a control variate: their mean features are known to be zero
        with torch.no_grad():
            known = features(start, components, same)
        moved = (features(generator, components, rng) - known).view(len(picked), 2, _HALF, -1).mean(dim=2)
        offset = moved - wanted[picked][:, None]
        # two halves: the product's expectation is the squared distance, with no reward for less varied images
        loss = (offset[:, 0] * offset[:, 1]).mean()
        optimiser.param_groups[0]["lr"] = LEARNING_RATE * (1.0 - step / stage.generator_steps)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        follow(average, generator, stage.generator_steps)
    return average
