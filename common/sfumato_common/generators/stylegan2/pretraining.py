"""Both networks learn from each other on public images."""

from __future__ import annotations

import torch

from sfumato_common.generators.components import component_shares, condition
from sfumato_common.generators.pretraining import BATCH, Pretrained, PublicJob
from sfumato_common.generators.settings import stage_of
from sfumato_common.generators.stylegan2.displacement import LEARNING_RATE
from sfumato_common.generators.stylegan2.networks import DISCRIMINATOR, GENERATOR, discriminator, generator
from sfumato_common.generators.stylegan2.settings import StyleGan2Stage
from sfumato_common.generators.stylegan2.training import Recipe, Training
from sfumato_common.generators.weights import draw_network, to_arrays
from sfumato_common.mechanisms.draws import TorchDraws


def pretrain(job: PublicJob, draws: TorchDraws) -> Pretrained:
    """Weights of the generator's moving average and of the discriminator, and the latter's loss in every step.

    Images are public, so that R1 and adaptive augmentation read them whatever the plan allows at its sites.
    """
    stage = stage_of(job.plan, StyleGan2Stage)
    maker, judge = draw_network(generator, job.plan), draw_network(discriminator, job.plan)
    recipe = Recipe(LEARNING_RATE, stage.penalty, stage.path_length)
    training = Training(maker.to(job.device), judge.to(job.device), recipe, draws.on(job.device))
    shares, losses = torch.from_numpy(component_shares(job.plan, job.released)), []
    for step in range(job.steps):
        training.pace(1.0 - step / job.steps)
        images, components = job.batch(draws)
        wanted = condition(job.plan, draws.categorical(shares, BATCH)).to(job.device)
        losses.append(training.step(images, condition(job.plan, components).to(job.device), wanted))
    made = training.average.cpu(), training.discriminator.cpu()
    return {**to_arrays(GENERATOR, made[0]), **to_arrays(DISCRIMINATOR, made[1])}, losses
