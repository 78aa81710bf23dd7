"""Generator and discriminator learn from each other on public images."""

from __future__ import annotations

import copy

import torch
from torch.nn import functional

from sfumato_common.generators.components import component_shares, condition
from sfumato_common.generators.gan.discriminator import fake_loss, real_loss
from sfumato_common.generators.gan.displacement import GENERATOR_BETAS, GENERATOR_LEARNING_RATE
from sfumato_common.generators.gan.networks import discriminator, generator
from sfumato_common.generators.gan.w_space import draw_images, follow
from sfumato_common.generators.pretraining import BATCH, Pretrained, PublicJob, descend
from sfumato_common.generators.weights import to_arrays
from sfumato_common.mechanisms.draws import TorchDraws


def pretrain(job: PublicJob, draws: TorchDraws) -> Pretrained:
    """Weights of the generator's moving average and of the discriminator, and the latter's loss in every step."""
    drawer, slow = job.network(generator, GENERATOR_LEARNING_RATE, GENERATOR_BETAS)
    judge, fast = job.network(discriminator, GENERATOR_LEARNING_RATE, GENERATOR_BETAS)
    average = copy.deepcopy(drawer)
    shares = torch.from_numpy(component_shares(job.plan, job.released))
    losses = []
    for _ in range(job.steps):
        images, components = job.batch(draws)
        drawn = draws.categorical(shares, BATCH).to(job.device)
        given = condition(job.plan, drawn)
        fakes = draw_images(job.plan, drawer, job.spectral, drawn, draws)
        real = real_loss(judge, images, condition(job.plan, components)).mean()
        losses.append(descend(real + fake_loss(judge, fakes.detach(), given).mean(), judge, fast))
        descend(functional.softplus(-judge(fakes, given)).mean(), drawer, slow)
        follow(average, drawer, job.steps)
    return {**to_arrays("generator", average.cpu()), **to_arrays("discriminator", judge.cpu())}, losses
