"""Per-patient gradients of the WHOLE loss by torch.func: exact for every module, log-determinants included."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from sfumato_client.training.dp.contract import RecordLoss, chunks, clipped, patient_weights, patients_at_once
from sfumato_common.errors import ConfigError

# parameters with a leading axis of patients, weights [n, m], records [n, m, ...] -> losses [n]
_Values = Callable[[dict[str, Tensor], Tensor, tuple[Tensor, ...]], Tensor]


class WholeLossVmap:
    """Every patient computes with parameters of its own; one backward pass then gives every patient's gradient.

    The copies are expanded, not stored, and the loss is vmapped over them. An ordinary backward pass outside costs half
    of what `vmap(grad(...))` does, which takes fused derivatives apart. Chunks have one fixed size; the last is padded.
    Never ghost clipping here, which sees layers only: on a flow one patient then moved the sum by 1.63 C.
    """

    def __init__(self, module: nn.Module, loss: RecordLoss) -> None:
        self._module = module

        def value(parameters: dict[str, Tensor], weights: Tensor, rows: tuple[Tensor, ...]) -> Tensor:
            def forward(*inputs: Tensor) -> Any:
                return functional_call(module, parameters, inputs)

            return (loss(forward, *rows) * weights).sum()

        self._values = self._prepared(vmap(value))

    def _prepared(self, values: _Values) -> _Values:
        return values

    def clipped_sum(
        self, records: Sequence[Tensor], clipping_norm: float, weights: Tensor | None = None
    ) -> list[Tensor]:
        """See the contract."""
        weights = patient_weights(records, weights)
        total = [torch.zeros_like(parameter) for parameter in self._module.parameters()]
        size = patients_at_once(weights.shape[1])
        for rows, own in chunks(records, weights):
            by_patient = tuple(_filled(part.reshape(*own.shape, *part.shape[1:]), size) for part in rows)
            samples = [sample[: len(own)] for sample in self._gradients(_filled(own, size), by_patient)]
            for slot, part in zip(total, clipped(samples, clipping_norm), strict=True):
                slot += part
        return total

    def _gradients(self, weights: Tensor, rows: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """One tensor [n, *shape] a parameter."""
        copies = {
            name: parameter.detach().expand(len(weights), *parameter.shape).requires_grad_()
            for name, parameter in self._module.named_parameters()
        }
        return torch.autograd.grad(self._values(copies, weights, rows).sum(), list(copies.values()))


class CompiledVmap(WholeLossVmap):
    """`WholeLossVmap` through torch.compile: faster steps for tens of seconds of compilation in each process."""

    def _prepared(self, values: _Values) -> _Values:
        if not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
            raise ConfigError("engine 'vmap-compiled' needs a C++ compiler and finds none; install g++ or use 'vmap'")
        compiled: _Values = torch.compile(values, fullgraph=True, dynamic=False)
        return compiled


def _filled(part: Tensor, size: int) -> Tensor:
    """[n, ...] with copies of its first row up to [size, ...]."""
    if len(part) == size:
        return part
    return torch.cat([part, part[:1].expand(size - len(part), *part.shape[1:])])
