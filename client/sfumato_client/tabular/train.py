"""The flow learns a table by DP-SGD (Abadi et al. 2016) through the site's own engines, noise and recorder."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional

from sfumato_client.tabular.coding import Cells, Coder
from sfumato_client.tabular.schema import TableSchema
from sfumato_client.tabular.terms import digest_of, dp_stage
from sfumato_client.training.dp.batches import Indices, capacity, placed_samples
from sfumato_client.training.dp.engines import private_engine
from sfumato_client.training.dp.step import noisy_mean
from sfumato_common.generators.device import training_device
from sfumato_common.generators.flow.displacement import BETAS
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import SecretStream
from sfumato_common.tabular.inn import TableINN, table_loss


def first_flow(schema: TableSchema) -> TableINN:
    """The flow before training: its weights are drawn from the resolved schema's digest."""
    generator = torch.Generator().manual_seed(int(digest_of(schema)[:15], 16))
    training = schema.training
    return TableINN(Coder(schema.features).width, schema.classes, training.couplings, training.hidden, generator)


def train_flow(
    schema: TableSchema, cells: Cells, condition: Tensor, secret: SecretStream, recorder: NoiseRecorder
) -> TableINN:
    """The flow of a resolved schema, trained on cells [P, C], one row a patient, with conditions [P]; on the CPU.

    Which patients a batch has, and how cells are spread, is drawn from `secret`. The mean of the second half of all
    steps' weights is returned (Polyak and Juditsky 1992): noise on single steps averages out.
    """
    stage, device = dp_stage(schema), training_device()
    nominal = schema.training.nominal_patients
    assert nominal is not None, "a resolved schema has its public number of patients"
    flow, coder = first_flow(schema).to(device), Coder(schema.features)
    engine = private_engine(flow, table_loss, "auto", ((coder.width,), (schema.classes,)))
    parameters = list(flow.parameters())
    optimiser = torch.optim.Adam(parameters, lr=stage.learning_rate, betas=BETAS)
    total, kept = [torch.zeros_like(parameter) for parameter in parameters], 0
    for step, batches in enumerate(_batches(schema, coder, cells, condition, secret)):
        sums = [
            engine.clipped_sum([part.to(device) for part in (x, y)], stage.clipping_norm, weights.to(device))
            for x, y, weights in batches
        ]
        clipped = [reduce(torch.add, same) for same in zip(*sums, strict=True)]
        gradients = noisy_mean(clipped, stage, stage.sampling_rate * nominal, recorder)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimiser.step()
        if step >= stage.local_steps // 2:
            kept += 1
            for mean, parameter in zip(total, parameters, strict=True):
                mean += parameter.detach()
    with torch.no_grad():
        for mean, parameter in zip(total, parameters, strict=True):
            parameter.copy_(mean / kept)
    return flow.cpu()


def one_hot(schema: TableSchema, condition: Tensor) -> Tensor:
    """Conditions float32 [N, K] of levels [N]."""
    return functional.one_hot(condition, schema.classes).float()


def _batches(
    schema: TableSchema, coder: Coder, cells: Cells, condition: Tensor, secret: SecretStream
) -> Iterator[list[tuple[Tensor, Tensor, Tensor]]]:
    """Poisson samples of patients, step by step: vectors [B, D], conditions [B, K], weights [B, 1].

    B is public; more patients than that fill further batches of the same shape, as in `training/dp/batches.py`.
    """
    stage, nominal = dp_stage(schema), schema.training.nominal_patients
    assert nominal is not None, "a resolved schema has its public number of patients"
    places = capacity(stage, nominal)
    for drawn in placed_samples(len(cells), stage, places, secret):
        yield [_pad(schema, coder, cells, condition, seats, places, secret) for seats in drawn]


def _pad(
    schema: TableSchema,
    coder: Coder,
    cells: Cells,
    condition: Tensor,
    seats: tuple[Indices, Indices],
    places: int,
    secret: SecretStream,
) -> tuple[Tensor, Tensor, Tensor]:
    x, y = torch.zeros(places, coder.width), torch.zeros(places, schema.classes)
    weights = torch.zeros(places, 1)
    patients, taken = seats
    if len(patients):
        x[taken] = coder.encode(cells[patients], secret).float()
        y[taken] = one_hot(schema, condition[patients])
        weights[taken] = 1.0
    return x, y, weights
