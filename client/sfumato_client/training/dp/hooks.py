"""Opacus's two ways to per-record gradients (Yousefpour et al. 2021): hooks on layers, and PyTorch's expanded weights.

Both hold every row's gradient at once, and both see layers only: parameters read outside a known layer are refused.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sfumato_client.training.dp.contract import (
    RecordLoss,
    add_clipped,
    by_patient,
    double_zeros,
    owners_of_parameters,
    patient_weights,
)

_KNOWN: tuple[type[nn.Module], ...] = (nn.Conv2d, nn.Linear, nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm2d)


class OpacusHooks:
    """Opacus's GradSampleModule: backward hooks that keep one gradient a row."""

    name = "opacus"

    def __init__(self, module: nn.Module, loss: RecordLoss) -> None:
        owners_of_parameters(module, _KNOWN, self.name)
        # hooks go on a copy: the module itself must stay free to meet generated images, which are not clipped
        self._wrapped = self._wrap(copy.deepcopy(module))
        self._module, self._loss = module, loss

    @staticmethod
    def _wrap(module: nn.Module) -> Any:
        # imported here: 2 s that the spectral stage should not pay
        from opacus.grad_sample import GradSampleModule

        return GradSampleModule(module, loss_reduction="sum", strict=True)

    def clipped_sum(
        self, records: Sequence[Tensor], clipping_norm: float, weights: Tensor | None = None
    ) -> list[Tensor]:
        """See the contract."""
        weights = patient_weights(records, weights)
        parameters = list(self._wrapped.parameters())
        totals = double_zeros(parameters)
        if not len(weights):
            return totals
        with torch.no_grad():
            for parameter, source in zip(parameters, self._module.parameters(), strict=True):
                parameter.copy_(source)
        self._wrapped.zero_grad(set_to_none=True)
        with warnings.catch_warnings():
            # torch remarks that images need no gradient; the per-record gradients of weights are unaffected
            warnings.filterwarnings("ignore", message="Full backward hook")
            value: Tensor = (self._loss(self._wrapped, *records) * weights.flatten()).sum()
            value.backward()  # type: ignore[no-untyped-call]
        samples = [by_patient(parameter.grad_sample, len(weights)) for parameter in parameters]
        self._wrapped.zero_grad(set_to_none=True)
        add_clipped(totals, samples, clipping_norm)
        return totals


class OpacusExpandedWeights(OpacusHooks):
    """Opacus's "ew" mode: torch's expanded weights, faster than hooks and heavier."""

    name = "opacus-ew"

    @staticmethod
    def _wrap(module: nn.Module) -> Any:
        from opacus.grad_sample import GradSampleModuleExpandedWeights

        return GradSampleModuleExpandedWeights(module, loss_reduction="sum")
