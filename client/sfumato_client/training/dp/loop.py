"""The oracle: one backward pass a patient (Abadi et al. 2016, Algorithm 1, literally)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sfumato_client.training.dp.contract import BLOCK, RecordLoss, chunks, double_zeros, patient_weights


class PatientLoop:
    """The slow, obvious engine that all others are measured against; exact for every module."""

    def __init__(self, module: nn.Module, loss: RecordLoss) -> None:
        self._module, self._loss = module, loss

    def clipped_sum(
        self, records: Sequence[Tensor], clipping_norm: float, weights: Tensor | None = None
    ) -> list[Tensor]:
        """See the contract."""
        weights = patient_weights(records, weights)
        parameters = list(self._module.parameters())
        total = double_zeros(parameters)
        for rows, own in chunks(records, weights, BLOCK):
            block = [torch.zeros_like(parameter) for parameter in parameters]
            for one in chunks(rows, own, 1):
                self._add(*one, clipping_norm, parameters, block)
            for slot, part in zip(total, block, strict=True):
                slot += part
        return total

    def _add(
        self,
        rows: list[Tensor],
        weights: Tensor,
        clipping_norm: float,
        parameters: Sequence[Tensor],
        block: list[Tensor],
    ) -> None:
        value = (self._loss(self._module, *rows) * weights[0]).sum()
        gradients = torch.autograd.grad(value, parameters)
        norm = float(sum(gradient.double().square().sum() for gradient in gradients)) ** 0.5
        if not norm < float("inf"):
            return
        factor = min(1.0, clipping_norm / max(norm, 1e-12))
        for slot, gradient in zip(block, gradients, strict=True):
            slot += factor * gradient
