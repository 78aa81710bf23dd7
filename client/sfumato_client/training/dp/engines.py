"""Engines that sum per-record clipped gradients (Abadi et al. 2016, Algorithm 1, line "clip"); all equal `RecordLoop`.

Contract of every engine: `clipped_sum(records, C)` gives, for each trainable parameter, the sum over records of
the record's gradient times min(1, C / norm), norm over ALL parameters. A record whose norm is not finite counts as
zero: one broken image must neither poison the sum nor pass the clip. No records give zeros. The loss must not couple
records: it maps a forward function and records [N, ...] to [N] values.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

RecordLoss = Callable[..., Tensor]


class Engine(Protocol):
    """Per-record gradients of one module under one loss, clipped and summed."""

    def __init__(self, module: nn.Module, loss: RecordLoss) -> None: ...

    def clipped_sum(self, records: Sequence[Tensor], clipping_norm: float) -> list[Tensor]:
        """Sum of clipped per-record gradients, one tensor a parameter, for records given as [N, ...] tensors."""
        ...


class RecordLoop:
    """The slow, obvious oracle: one backward pass a record."""

    def __init__(self, module: nn.Module, loss: RecordLoss) -> None:
        self._module, self._loss = module, loss

    def clipped_sum(self, records: Sequence[Tensor], clipping_norm: float) -> list[Tensor]:
        """See the module's contract."""
        parameters = list(self._module.parameters())
        total = [torch.zeros_like(parameter) for parameter in parameters]
        for index in range(len(records[0])):
            value = self._loss(self._module, *(part[index : index + 1] for part in records)).sum()
            gradients = torch.autograd.grad(value, parameters)
            norm = torch.sqrt(sum((g.double().square().sum() for g in gradients), torch.zeros((), dtype=torch.float64)))
            if not torch.isfinite(norm):
                continue
            weight = min(1.0, clipping_norm / max(float(norm), 1e-12))
            for slot, gradient in zip(total, gradients, strict=True):
                slot += weight * gradient
        return total


class OpacusHooks:
    """Opacus's GradSampleModule (Yousefpour et al. 2021): hooks on layers, so never for losses on bare parameters."""

    def __init__(self, module: nn.Module, loss: RecordLoss) -> None:
        # imported here: 2 s that the spectral stage should not pay
        from opacus.grad_sample import GradSampleModule

        # hooks go on a copy: the module itself must stay free to meet generated images, which are not clipped
        self._wrapped: Any = GradSampleModule(copy.deepcopy(module), loss_reduction="sum", strict=True)
        self._module, self._loss = module, loss

    def clipped_sum(self, records: Sequence[Tensor], clipping_norm: float) -> list[Tensor]:
        """See the module's contract."""
        parameters = list(self._wrapped.parameters())
        if not len(records[0]):
            return [torch.zeros_like(parameter) for parameter in parameters]
        with torch.no_grad():
            for parameter, source in zip(parameters, self._module.parameters(), strict=True):
                parameter.copy_(source)
        self._wrapped.zero_grad(set_to_none=True)
        with warnings.catch_warnings():
            # torch remarks that images need no gradient; the per-record gradients of weights are unaffected
            warnings.filterwarnings("ignore", message="Full backward hook")
            self._loss(self._wrapped, *records).sum().backward()  # type: ignore[no-untyped-call]
        samples = [parameter.grad_sample for parameter in parameters]
        self._wrapped.zero_grad(set_to_none=True)
        return _weighted_sum(samples, clipping_norm)


class WholeLossVmap:
    """torch.func: vmap over the gradient of the WHOLE loss, so log-determinants of bare parameters are included.

    Runs in chunks of one fixed size; the last is padded with copies of weight zero.
    """

    chunk = 32

    def __init__(self, module: nn.Module, loss: RecordLoss) -> None:
        self._module = module

        def record_value(parameters: dict[str, Tensor], *record: Tensor) -> Tensor:
            def forward(*inputs: Tensor) -> Any:
                return functional_call(module, parameters, inputs)

            return loss(forward, *(part[None] for part in record)).sum()

        self._record_value = record_value

    def clipped_sum(self, records: Sequence[Tensor], clipping_norm: float) -> list[Tensor]:
        """See the module's contract."""
        parameters = {name: value.detach() for name, value in self._module.named_parameters()}
        total = [torch.zeros_like(value) for value in parameters.values()]
        per_record = vmap(grad(self._record_value), in_dims=(None, *(0 for _ in records)))
        for start in range(0, len(records[0]), self.chunk):
            parts = [part[start : start + self.chunk] for part in records]
            real = len(parts[0])
            padded = [torch.cat([part, part[:1].expand(self.chunk - real, *part.shape[1:])]) for part in parts]
            samples = [sample[:real] for sample in per_record(parameters, *padded).values()]
            for slot, clipped in zip(total, _weighted_sum(samples, clipping_norm), strict=True):
                slot += clipped
        return total


def _weighted_sum(samples: Sequence[Tensor], clipping_norm: float) -> list[Tensor]:
    """Clipped sum of per-record gradients [N, ...]: norms in float64, records of non-finite norm dropped."""
    squared = torch.stack([sample.flatten(1).double().square().sum(dim=1) for sample in samples]).sum(dim=0)
    norms = squared.sqrt()
    finite = torch.isfinite(norms)
    weights = torch.clamp(clipping_norm / norms[finite].clamp(min=1e-12), max=1.0).float()
    # rows are selected, not multiplied by zero: 0 x inf would be nan
    return [torch.tensordot(weights, sample[finite], dims=1) for sample in samples]


ENGINES: dict[str, type[Engine]] = {"loop": RecordLoop, "opacus": OpacusHooks, "vmap": WholeLossVmap}
