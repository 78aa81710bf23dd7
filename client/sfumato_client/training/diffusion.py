"""Diffusion stage at the site: an adapter of a frozen public denoiser learns by DP-SGD; only its change leaves."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sfumato_client.training import StageJob
from sfumato_client.training.dp.batches import PatientBatch
from sfumato_client.training.dp.engines import private_engine
from sfumato_client.training.dp.proximal import Proximal
from sfumato_client.training.dp.step import PrivateGradient
from sfumato_client.training.whitened import record_batches, white_records
from sfumato_common.generators.components import condition, condition_width
from sfumato_common.generators.device import training_device
from sfumato_common.generators.diffusion.denoising import angles, denoising_loss
from sfumato_common.generators.diffusion.displacement import BETAS
from sfumato_common.generators.diffusion.networks import ADAPTER, adapted_denoiser
from sfumato_common.generators.diffusion.settings import DiffusionStage
from sfumato_common.generators.update import UPDATE, pack_update
from sfumato_common.generators.weights import to_arrays
from sfumato_common.generators.whitening import Whitening, whitening_of
from sfumato_common.mechanisms.streams import SecretStream
from sfumato_common.types import Arrays


def train_adapter(job: StageJob[DiffusionStage]) -> Arrays:
    """`local_steps` of DP-SGD on the loss of removing noise from records whitened by the plan's first release."""
    stage, device = job.stage, training_device()
    model = adapted_denoiser(job.plan, job.inbound).to(device)
    whitening, secret = whitening_of(job.plan, job.inbound), SecretStream(job.noise)
    parameters = list(model.parameters())
    optimiser = torch.optim.Adam(parameters, lr=stage.learning_rate, betas=BETAS)
    form = whitening.form.shape
    record = form, (condition_width(job.plan),), (stage.noise_levels, *form), (stage.noise_levels,)
    engine = private_engine(model, denoising_loss, stage.engine, record, job.ranks)
    private, proximal = PrivateGradient(job, engine), Proximal(parameters, stage.proximal)
    for batches in record_batches(job, whitening, secret):
        gradients = private(
            ([part.to(device) for part in records], weights.to(device))
            for records, weights in _records(job, batches, whitening, secret)
        )
        for parameter, gradient in zip(parameters, proximal(gradients), strict=True):
            parameter.grad = gradient
        optimiser.step()
    return {UPDATE: pack_update(job.inbound, to_arrays(ADAPTER, model.adapter))}


def _records(
    job: StageJob[DiffusionStage], batches: list[PatientBatch], whitening: Whitening, secret: SecretStream
) -> Iterator[tuple[list[Tensor], Tensor]]:
    """Whitened records, conditions, and noise levels of every place, whoever took it; with the weights."""
    levels = job.stage.noise_levels
    for batch in batches:
        white, components = white_records(job, whitening, batch, secret)
        noise = secret.normal64((len(white), levels, *white.shape[1:])).float()
        angle = angles(secret.uniform((len(white), levels)))
        yield [white, condition(job.plan, components), noise, angle], batch.weights
