"""DP-SGD on several devices: a batch's patients are shared over ranks, and the clipped sums are added up (all-reduced).

Rank 0 is the process of the charge: it alone has the ledger, the cohort, the noise and the optimiser. The others are
given the step's weights, their part of the batch and nothing else, and clip each of their patients (Abadi et al. 2016,
Algorithm 1, line "clip"). Noise is added once, by rank 0, to the sum of all. Every part has one public shape, so that
neither its size nor the work of a rank tells who came; a patient is clipped whole, by one rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato_client.training.dp.contract import Engine, RecordLoss, patient_weights
from sfumato_common.types import AnyArray, Arrays

WEIGHTS, PATIENTS, RECORD = "weights", "patients", "record-"


class Ranks(Protocol):
    """The ranks of one piece of work, this one included. What fails with one of them is a WorkerLost."""

    @property
    def world(self) -> int:
        """How many there are; 1: this process alone."""
        ...

    def begin(self, module: nn.Module, loss: RecordLoss, engine: str) -> None:
        """Start the others, each with a copy of `module`."""
        ...

    def hand_out(self, rank: int, arrays: Arrays, clipping_norm: float) -> None:
        """Give rank 1, 2, ... its part of a step."""
        ...

    def add_up(self, own: Tensor) -> Tensor:
        """The sum of all ranks' float64 vectors [D] on the CPU, of which this rank's is `own`."""
        ...


class SharedSums:
    """An engine whose clipped sums are those of `engine`, made by all `ranks` together."""

    def __init__(self, engine: Engine, module: nn.Module, ranks: Ranks) -> None:
        self._engine, self._module, self._ranks = engine, module, ranks

    def clipped_sum(
        self, records: Sequence[Tensor], clipping_norm: float, weights: Tensor | None = None
    ) -> list[Tensor]:
        """See the contract; places are filled up with padding to a multiple of the number of ranks."""
        weights, world = patient_weights(records, weights), self._ranks.world
        part = max(1, -(-len(weights) // world))
        views = weights.shape[1] if len(weights) else 1
        own_records, *other_records = _shares(records, part * views, world)
        own_weights, *other_weights = (shares[0] for shares in _shares([weights], part, world))
        state = flat_weights(self._module)
        for rank, (rows, given) in enumerate(zip(other_records, other_weights, strict=True), start=1):
            self._ranks.hand_out(rank, _packed(state, rows, given), clipping_norm)
        own = self._engine.clipped_sum(own_records, clipping_norm, own_weights)
        total = self._ranks.add_up(flat_sum(own))
        pieces = torch.split(total, [piece.numel() for piece in own])
        return [piece.reshape(like.shape).to(like.device) for piece, like in zip(pieces, own, strict=True)]


def part_of_step(module: nn.Module, engine: Engine, arrays: Arrays, clipping_norm: float) -> Tensor:
    """What a rank other than 0 does with what it was handed: its clipped sum, float64 [D] on the CPU."""
    device = next(module.parameters()).device
    _set_weights(module, arrays[WEIGHTS])
    count = sum(name.startswith(RECORD) for name in arrays)
    records = [torch.from_numpy(arrays[f"{RECORD}{at}"]).to(device) for at in range(count)]
    weights = torch.from_numpy(arrays[PATIENTS]).to(device)
    return flat_sum(engine.clipped_sum(records, clipping_norm, weights))


def flat_sum(parts: Sequence[Tensor]) -> Tensor:
    """The tensors of a clipped sum as one vector [D], float64 on the CPU."""
    return torch.cat([part.double().flatten().cpu() for part in parts])


def flat_weights(module: nn.Module) -> AnyArray:
    """The parameters that are trained, as one float32 vector [D]."""
    found: AnyArray = torch.cat([value.detach().flatten().cpu() for value in module.parameters()]).numpy()
    return found


def _set_weights(module: nn.Module, flat: AnyArray) -> None:
    parameters = list(module.parameters())
    pieces = torch.split(torch.from_numpy(flat), [value.numel() for value in parameters])
    with torch.no_grad():
        for value, piece in zip(parameters, pieces, strict=True):
            value.copy_(piece.reshape(value.shape))


def _shares(parts: Sequence[Tensor], rows: int, world: int) -> list[list[Tensor]]:
    """Each of `parts` [n, ...], padded with zeros, in `world` shares of `rows`; a list a rank."""
    whole = [functional.pad(part, [0, 0] * (part.ndim - 1) + [0, rows * world - len(part)]) for part in parts]
    return [[part[rank * rows : (rank + 1) * rows] for part in whole] for rank in range(world)]


def _packed(state: AnyArray, records: Sequence[Tensor], weights: Tensor) -> dict[str, AnyArray]:
    named = {f"{RECORD}{at}": np.asarray(part.cpu().numpy()) for at, part in enumerate(records)}
    return {WEIGHTS: state, PATIENTS: weights.cpu().numpy(), **named}
