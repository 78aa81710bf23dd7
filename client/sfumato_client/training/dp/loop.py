"""The oracle: one backward pass a patient (Abadi et al. 2016, Algorithm 1, literally)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sfumato_client.training.dp.contract import RecordLoss, patient_weights


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
        total = [torch.zeros_like(parameter) for parameter in parameters]
        views = weights.shape[1]
        for index, own in enumerate(weights):
            rows = [part[index * views : (index + 1) * views] for part in records]
            value = (self._loss(self._module, *rows) * own).sum()
            gradients = torch.autograd.grad(value, parameters)
            norm = float(sum(gradient.double().square().sum() for gradient in gradients)) ** 0.5
            if not norm < float("inf"):
                continue
            factor = min(1.0, clipping_norm / max(norm, 1e-12))
            for slot, gradient in zip(total, gradients, strict=True):
                slot += factor * gradient
        return total
