"""Flow stage at the site: a flow on whitened images learns by DP-SGD; only the change of its weights leaves."""

from __future__ import annotations

import torch

from sfumato_client.training import StageJob
from sfumato_client.training.dp.batches import patient_batches
from sfumato_client.training.dp.engines import private_engine
from sfumato_client.training.dp.proximal import Proximal
from sfumato_client.training.dp.step import PrivateGradient
from sfumato_common.generators.components import components_of, condition, condition_width
from sfumato_common.generators.device import training_device
from sfumato_common.generators.flow.displacement import BETAS
from sfumato_common.generators.flow.flows import flow_loss
from sfumato_common.generators.flow.sampler import released_flow
from sfumato_common.generators.flow.settings import FlowStage
from sfumato_common.generators.spectral.whitening import dequantise, spectral_model
from sfumato_common.generators.update import UPDATE, pack_update
from sfumato_common.generators.weights import to_arrays
from sfumato_common.mechanisms.streams import SecretStream
from sfumato_common.types import Arrays


def train_flow(job: StageJob[FlowStage]) -> Arrays:
    """`local_steps` of DP-SGD on the flow's likelihood of dequantised images whitened by the spectral release."""
    stage, device = job.stage, training_device()
    flow = released_flow(job.plan, job.inbound).to(device)
    spectral = spectral_model(job.plan, job.inbound)
    secret = SecretStream(job.noise)
    parameters = list(flow.parameters())
    optimiser = torch.optim.Adam(parameters, lr=stage.learning_rate, betas=BETAS)
    form = (job.plan.image.channels, job.plan.image.size, job.plan.image.size)
    engine = private_engine(flow, flow_loss, stage.engine, (form, (condition_width(job.plan),)))
    private, proximal = PrivateGradient(job, engine), Proximal(parameters, stage.proximal)
    nominal = job.plan.sites[job.site].nominal_patients
    for batches in patient_batches(job.cohort, stage, nominal, secret, form):
        components = [components_of(job.plan, job.site, batch.labels) for batch in batches]
        white = [
            spectral.encode(dequantise(batch.images, secret, job.plan.image.bits), y)[0]
            for batch, y in zip(batches, components, strict=True)
        ]
        gradients = private(
            ((u.to(device), condition(job.plan, y).to(device)), batch.weights.to(device))
            for u, y, batch in zip(white, components, batches, strict=True)
        )
        for parameter, gradient in zip(parameters, proximal(gradients), strict=True):
            parameter.grad = gradient
        optimiser.step()
    update = pack_update(job.inbound, to_arrays("flow", flow))
    return {UPDATE: update}
