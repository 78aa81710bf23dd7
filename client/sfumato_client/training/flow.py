"""Flow stage at the site: a flow on whitened images or codes learns by DP-SGD; only its weights' change leaves."""

from __future__ import annotations

import torch

from sfumato_client.training import StageJob
from sfumato_client.training.dp.engines import private_engine
from sfumato_client.training.dp.proximal import Proximal
from sfumato_client.training.dp.step import PrivateGradient
from sfumato_client.training.whitened import record_batches, white_records
from sfumato_common.generators.components import condition, condition_width
from sfumato_common.generators.device import training_device
from sfumato_common.generators.flow.displacement import BETAS
from sfumato_common.generators.flow.flows import flow_loss
from sfumato_common.generators.flow.sampler import released_flow
from sfumato_common.generators.flow.settings import FlowStage
from sfumato_common.generators.update import UPDATE, pack_update
from sfumato_common.generators.weights import to_arrays
from sfumato_common.generators.whitening import whitening_of
from sfumato_common.mechanisms.streams import SecretStream
from sfumato_common.types import Arrays


def train_flow(job: StageJob[FlowStage]) -> Arrays:
    """`local_steps` of DP-SGD on the flow's likelihood of records whitened by the plan's first release."""
    stage, device = job.stage, training_device()
    flow = released_flow(job.plan, job.inbound).to(device)
    whitening = whitening_of(job.plan, job.inbound)
    secret = SecretStream(job.noise)
    parameters = list(flow.parameters())
    optimiser = torch.optim.Adam(parameters, lr=stage.learning_rate, betas=BETAS)
    record = whitening.form.shape, (condition_width(job.plan),)
    engine = private_engine(flow, flow_loss, stage.engine, record, job.ranks)
    private, proximal = PrivateGradient(job, engine), Proximal(parameters, stage.proximal)
    for batches in record_batches(job, whitening, secret):
        white = [white_records(job, whitening, batch, secret) for batch in batches]
        gradients = private(
            ((u.to(device), condition(job.plan, y).to(device)), batch.weights.to(device))
            for (u, y), batch in zip(white, batches, strict=True)
        )
        for parameter, gradient in zip(parameters, proximal(gradients), strict=True):
            parameter.grad = gradient
        optimiser.step()
    update = pack_update(job.inbound, to_arrays("flow", flow))
    return {UPDATE: update}
