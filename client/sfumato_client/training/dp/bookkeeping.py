"""Book-keeping (Bu et al. 2023, "Differentially Private Optimization on Large Model at Small Cost"), with views.

One forward pass with detached weights, ONE backward pass to every layer's output, per-patient norms from inputs and
output gradients, one contraction weighted by the clip factors: a plain training step plus the norms. It sees layers, so
it takes only modules whose parameters all belong to layers of the table below, each used once in a forward pass.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sfumato_client.training.dp.contract import (
    CHUNK_ROWS,
    RecordLoss,
    RowsByMemory,
    chunks,
    clip_factors,
    double_zeros,
    owners_of_parameters,
    patient_weights,
    patients_at_once,
    squared_norms,
)
from sfumato_client.training.dp.products import ConvTap, LinearTap
from sfumato_client.training.dp.taps import GroupNormTap, InstanceNormTap, LayerNormTap, PReLUTap, Tap
from sfumato_common.errors import ConfigError

# To add a layer: its tap, one line here, and a module in the contract suite that uses it.
TAPS: dict[type[nn.Module], Callable[..., Tap]] = {
    nn.Conv2d: ConvTap,
    nn.Linear: LinearTap,
    nn.GroupNorm: GroupNormTap,
    nn.InstanceNorm2d: InstanceNormTap,
    nn.LayerNorm: LayerNormTap,
    nn.PReLU: PReLUTap,
}


class BookKeeping:
    """Clipped sums at about the cost of one plain step, in chunks of patients that bound the memory."""

    def __init__(self, module: nn.Module, loss: RecordLoss) -> None:
        self._module, self._loss, self._rows = module, loss, RowsByMemory(module, loss)
        owners = owners_of_parameters(module, tuple(TAPS), "bookkeeping")
        self._taps = [TAPS[type(layer)](name, layer) for name, layer in owners.items()]
        # the copy shares its layers' parameters with the module through the taps, and has none of its own
        self._shadow: Any = copy.deepcopy(module, {id(tap.layer): tap for tap in self._taps})

    def clipped_sum(
        self, records: Sequence[Tensor], clipping_norm: float, weights: Tensor | None = None
    ) -> list[Tensor]:
        """See the contract."""
        weights = patient_weights(records, weights)
        parameters = list(self._module.parameters())
        total = dict(zip(map(id, parameters), double_zeros(parameters), strict=True))
        size = patients_at_once(len(weights), weights.shape[1], self._rows(records, CHUNK_ROWS))
        for rows, own in chunks(records, weights, size):
            try:
                self._add(rows, own, clipping_norm, total)
            finally:
                for tap in self._taps:
                    tap.release()
        return [total[id(parameter)] for parameter in parameters]

    def _add(self, rows: list[Tensor], weights: Tensor, clipping_norm: float, total: dict[int, Tensor]) -> None:
        value = (self._loss(self._shadow, *rows) * weights.flatten()).sum()
        gradients = torch.autograd.grad(value, self._edges(), allow_unused=True)
        squared = torch.zeros(len(weights), dtype=torch.float64, device=weights.device)
        for tap, gradient in zip(self._taps, gradients, strict=True):
            if gradient is None:
                raise ConfigError(f"engine 'bookkeeping': the loss does not depend on '{tap.name}'")
            squared += tap.receive(gradient, len(weights))
        factors = self._add_alone(squared, clipping_norm, total)
        for tap in self._taps:
            if not tap.alone:
                for parameter, part in zip(tap.layer.parameters(), tap.weighted_sums(factors), strict=True):
                    total[id(parameter)] += part

    def _add_alone(self, squared: Tensor, clipping_norm: float, total: dict[int, Tensor]) -> Tensor:
        """Clip factors [n], after the gradients of taps that work alone were added to norms and sums."""
        taps = [tap for tap in self._taps if tap.alone]
        if not taps:
            return clip_factors(squared, clipping_norm)
        owned = [parameter for tap in taps for parameter in tap.layer.parameters()]
        block = [torch.zeros_like(parameter) for parameter in owned]
        factors = []
        for patient, others in enumerate(squared):
            parts = [part for tap in taps for part in tap.gradient_of(patient)]
            own = torch.stack([squared_norms(part[None]) for part in parts]).sum()
            factors.append(clip_factors(others + own, clipping_norm))
            if factors[-1] > 0:
                for slot, part in zip(block, parts, strict=True):
                    slot.add_(part, alpha=float(factors[-1]))
        for parameter, part in zip(owned, block, strict=True):
            total[id(parameter)] += part
        return torch.stack(factors)

    def _edges(self) -> list[Any]:
        for tap in self._taps:
            if tap.edge is None:
                raise ConfigError(f"engine 'bookkeeping' cannot follow '{tap.name}', which forward does not call")
        return [tap.edge for tap in self._taps]
