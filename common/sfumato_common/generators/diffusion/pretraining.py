"""The denoiser learns whitened public images, or codes of them; the adapter stays new."""

from __future__ import annotations

import copy

from sfumato_common.generators.components import condition
from sfumato_common.generators.diffusion.denoising import angles, denoising_loss
from sfumato_common.generators.diffusion.displacement import BETAS
from sfumato_common.generators.diffusion.networks import ADAPTER, DENOISER, adapter, denoiser
from sfumato_common.generators.gan.w_space import follow
from sfumato_common.generators.pretraining import BATCH, Pretrained, PublicJob, descend
from sfumato_common.generators.weights import draw_network, to_arrays
from sfumato_common.mechanisms.draws import TorchDraws

_LEARNING_RATE = 1e-3


def pretrain(job: PublicJob, draws: TorchDraws) -> Pretrained:
    """Weights of the denoiser's moving average and of a new adapter, and the loss of every step."""
    network, optimiser = job.network(denoiser, _LEARNING_RATE, BETAS)
    average, losses = copy.deepcopy(network), []
    for _ in range(job.steps):
        values, components = job.batch(draws)
        white = job.whitening.white(values, components)
        noise = draws.normal((BATCH, 1, *white.shape[1:])).to(job.device)
        angle = angles(draws.uniform((BATCH, 1))).to(job.device)
        given = condition(job.plan, components).to(job.device)
        losses.append(descend(denoising_loss(network, white, given, noise, angle).mean(), network, optimiser))
        follow(average, network, job.steps)
    return {**to_arrays(DENOISER, average.cpu()), **to_arrays(ADAPTER, draw_network(adapter, job.plan))}, losses
