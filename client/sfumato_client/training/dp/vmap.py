"""Per-patient gradients of the WHOLE loss by torch.func: exact for every module, log-determinants included."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from sfumato_client.training.dp.contract import (
    RecordLoss,
    RowsByMemory,
    add_clipped,
    chunks,
    double_zeros,
    patient_weights,
    patients_at_once,
)
from sfumato_common.errors import ConfigError

# A call costs much here and little more for many rows, as long as the patients' gradients fit in `_COPIES_BYTES`, which
# is near the caches. Memory may allow fewer.
_FEWEST_ROWS, _MOST_ROWS = 32, 128
_COPIES_BYTES = 64 * 1024 * 1024
# parameters by name, weights [n, m], records [n, m, ...] -> gradients [n, ...] by name
_Gradients = Callable[[dict[str, Tensor], Tensor, tuple[Tensor, ...]], dict[str, Tensor]]


class WholeLossVmap:
    """Every patient computes with parameters of its own; one backward pass then gives every patient's gradient.

    The copies are expanded, not stored, and the loss is vmapped over them. An ordinary backward pass outside costs half
    of what `vmap(grad(...))` does, which takes fused derivatives apart. Chunks have one fixed size; the last is padded.
    Never ghost clipping here, which sees layers only: on a flow one patient then moved the sum by 1.63 C.
    """

    def __init__(self, module: nn.Module, loss: RecordLoss) -> None:
        self._module, self._rows = module, RowsByMemory(module, loss)

        def value(parameters: dict[str, Tensor], weights: Tensor, rows: tuple[Tensor, ...]) -> Tensor:
            def forward(*inputs: Tensor) -> Any:
                return functional_call(module, parameters, inputs)

            return (loss(forward, *rows) * weights).sum()

        self._value = value
        self._gradients = self._make()

    def _make(self) -> _Gradients:
        values = vmap(self._value)

        def gradients(parameters: dict[str, Tensor], weights: Tensor, rows: tuple[Tensor, ...]) -> dict[str, Tensor]:
            copies = {
                name: value.expand(len(weights), *value.shape).requires_grad_() for name, value in parameters.items()
            }
            parts = torch.autograd.grad(values(copies, weights, rows).sum(), list(copies.values()))
            return dict(zip(copies, parts, strict=True))

        return gradients

    def clipped_sum(
        self, records: Sequence[Tensor], clipping_norm: float, weights: Tensor | None = None
    ) -> list[Tensor]:
        """See the contract."""
        weights = patient_weights(records, weights)
        parameters = {name: value.detach() for name, value in self._module.named_parameters()}
        total = double_zeros(parameters.values())
        copies = sum(4 * value.numel() for value in parameters.values())
        most = max(_FEWEST_ROWS, min(_MOST_ROWS, _COPIES_BYTES // copies))
        size = patients_at_once(len(weights), weights.shape[1], self._rows(records, most))
        for rows, own in chunks(records, weights, size):
            by_patient = tuple(_fill(part.reshape(*own.shape, *part.shape[1:]), size) for part in rows)
            samples = self._gradients(parameters, _fill(own, size), by_patient).values()
            real = [sample[: len(own)] for sample in samples]
            add_clipped(total, real, clipping_norm)
        return total


class CompiledVmap(WholeLossVmap):
    """The same through torch.compile: faster steps for a minute of compilation in each fresh process.

    Here vmap over grad is the faster way: the compiler fuses what it takes apart.
    """

    def _make(self) -> _Gradients:
        if not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
            raise ConfigError("engine 'vmap-compiled' needs a C++ compiler and finds none; install g++ or use 'vmap'")
        per_patient = vmap(grad(self._value), in_dims=(None, 0, 0))
        compiled: _Gradients = torch.compile(per_patient, fullgraph=True, dynamic=False)
        return compiled


def _fill(part: Tensor, size: int) -> Tensor:
    """[n, ...] with copies of its first row up to [size, ...]."""
    if len(part) == size:
        return part
    return torch.cat([part, part[:1].expand(size - len(part), *part.shape[1:])])
