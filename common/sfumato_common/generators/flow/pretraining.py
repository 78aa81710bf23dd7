"""The flow learns whitened public images, or codes of them."""

from __future__ import annotations

from sfumato_common.generators.components import condition
from sfumato_common.generators.flow.displacement import BETAS
from sfumato_common.generators.flow.flows import flow_loss
from sfumato_common.generators.flow.networks import flow
from sfumato_common.generators.pretraining import Pretrained, PublicJob, descend
from sfumato_common.generators.weights import to_arrays
from sfumato_common.mechanisms.draws import TorchDraws

_LEARNING_RATE = 5e-4


def pretrain(job: PublicJob, draws: TorchDraws) -> Pretrained:
    """Weights of the flow, and the loss of every step."""
    network, optimiser = job.network(flow, _LEARNING_RATE, BETAS)
    losses = []
    for _ in range(job.steps):
        values, components = job.batch(draws)
        white = job.whitening.white(values, components)
        loss = flow_loss(network, white, condition(job.plan, components)).mean()
        losses.append(descend(loss, network, optimiser))
    return to_arrays("flow", network.cpu()), losses
