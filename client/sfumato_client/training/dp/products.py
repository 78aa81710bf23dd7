"""Taps of layers that are matrix products over positions: linear layers and convolutions.

A patient's weight gradient is G U with U [Q, D] what each of its Q positions sees (all views together) and G [O, Q] the
gradient at the output there. Three exact ways to its norm and to the clipped sum, by the cheapest (Bu et al. 2023 mix
the first two): `samples` keeps every patient's G U; `gram` takes the norm from sum_pq (U U^T)_pq (G^T G)_pq (Goodfellow
2015) and the sum from one more contraction; `alone` makes one gradient at a time with the convolution's own kernel.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato_client.training.dp.contract import squared_norms, weighted_sum
from sfumato_client.training.dp.taps import Tap
from sfumato_common.errors import ConfigError

Way = Literal["samples", "gram", "alone"]
# Gram norms are rounded up by this share of sum_q |U_q|^2 |G_q|^2, sixteen roundings of float32: where positions cancel
# (an even background), a norm that came out too small would let a patient past the clip.
_ROUNDING = 2.0**-20


def cheapest(positions: int, inputs: int, outputs: int) -> Way:
    """The cheapest way for a patient's `positions`, by multiply-adds beyond a plain backward pass (measured weights).

    An entry gathered costs 10, an entry of a gradient kept and read again 20; `alone` reads it twice, after a call.
    """
    gather, entries = 10 * positions * inputs, inputs * outputs
    costs: dict[Way, int] = {
        "samples": positions * entries + gather + 20 * entries,
        "gram": positions**2 * (inputs + outputs) + gather,
        "alone": 40 * entries + 6_000_000,
    }
    return min(costs, key=lambda way: costs[way])


class ProductTap(Tap):
    """What linear layers and convolutions share; a subclass says what positions see and how rows are contracted."""

    way: Way = "samples"

    @property
    def alone(self) -> bool:
        """Whether gradients are made by `gradient_of`, one patient at a time."""
        return self.way == "alone"

    def receive(self, gradient: Tensor, patients: int) -> Tensor:
        """Squared norms [n] of what `weighted_sums` will add up; zeros when `alone`."""
        weight, bias = self._weights()
        outputs, inputs = weight.shape[0], weight[0].numel()
        self.way = cheapest(gradient.numel() // (patients * outputs), inputs, outputs)
        self._gradient, self._views = gradient, len(gradient) // patients
        squared = torch.zeros(patients, dtype=torch.float64, device=gradient.device)
        self._samples = []
        if self.alone:
            return squared
        seen, given = self._inputs_of(patients), self._gradients_of(gradient, patients)
        if self.way == "gram":
            squared += _gram_norms(seen, given)
        else:
            self._samples = [torch.bmm(given, seen)]
        if bias is not None:
            self._samples.append(given.sum(dim=2))
        return squared + sum(squared_norms(part) for part in self._samples)

    def weighted_sums(self, factors: Tensor) -> list[Tensor]:
        """Sum over patients of factor [n] times gradient; only where not `alone`."""
        parts = [weighted_sum(part, factors) for part in self._samples]
        if self.way == "gram":
            return [self._contract_with(factors), *parts]
        return [self._as_weight(parts[0]), *parts[1:]]

    def gradient_of(self, patient: int) -> list[Tensor]:
        """One patient's gradient."""
        rows = slice(patient * self._views, (patient + 1) * self._views)
        gradient = self._gradient[rows]
        parts = [self._contract(self.input[rows], gradient)]
        return parts if self._weights()[1] is None else [*parts, self._gradients_of(gradient, 1)[0].sum(dim=1)]

    def release(self) -> None:
        """Forget the pass."""
        super().release()
        self.__dict__.pop("_gradient", None)

    def _contract_with(self, factors: Tensor) -> Tensor:
        rows, gradient = self.input, self._gradient
        factors = factors.repeat_interleave(self._views)
        kept = factors > 0
        if not kept.all():
            # selected, not multiplied by zero: 0 x inf would be nan
            rows, gradient, factors = rows[kept], gradient[kept], factors[kept]
        return self._contract(rows, gradient * factors.view(-1, *[1] * (gradient.ndim - 1)))

    @abstractmethod
    def _inputs_of(self, patients: int) -> Tensor:
        """[n, Q, D]."""

    @abstractmethod
    def _gradients_of(self, gradient: Tensor, patients: int) -> Tensor:
        """[n, O, Q]."""

    @abstractmethod
    def _contract(self, rows: Tensor, gradient: Tensor) -> Tensor:
        """Weight gradient, summed over rows."""

    @abstractmethod
    def _as_weight(self, matrix: Tensor) -> Tensor:
        """[O, D], D as `_inputs_of` has it, in the weight's shape."""


def _gram_norms(seen: Tensor, given: Tensor) -> Tensor:
    inward, outward = torch.bmm(seen, seen.mT), torch.bmm(given.mT, given)
    squared = (inward * outward).sum(dim=2).double().sum(dim=1)
    diagonal = (inward.diagonal(dim1=1, dim2=2) * outward.diagonal(dim1=1, dim2=2)).double().sum(dim=1)
    return squared.clamp(min=0.0) + _ROUNDING * diagonal


class LinearTap(ProductTap):
    """nn.Linear on [R, ..., D]."""

    layer: nn.Linear

    def _output(self, x: Tensor) -> Tensor:
        return functional.linear(x, *self._weights())

    def _inputs_of(self, patients: int) -> Tensor:
        return self.input.reshape(patients, -1, self.input.shape[-1])

    def _gradients_of(self, gradient: Tensor, patients: int) -> Tensor:
        return gradient.reshape(patients, -1, gradient.shape[-1]).mT

    def _contract(self, rows: Tensor, gradient: Tensor) -> Tensor:
        return gradient.flatten(0, -2).mT @ rows.flatten(0, -2)

    def _as_weight(self, matrix: Tensor) -> Tensor:
        return matrix


class ConvTap(ProductTap):
    """nn.Conv2d on [R, C, H, W] with zero padding and one group."""

    layer: nn.Conv2d

    def __init__(self, name: str, layer: nn.Conv2d) -> None:
        super().__init__(name, layer)
        if layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            raise ConfigError(
                f"engine 'bookkeeping' does not know groups, named padding or padding other than zeros in '{name}'; "
                "use the engine 'vmap'"
            )

    def _output(self, x: Tensor) -> Tensor:
        weight, bias = self._weights()
        return functional.conv2d(x, weight, bias, self.layer.stride, self._padding, self.layer.dilation)

    @property
    def _padding(self) -> tuple[int, int]:
        assert not isinstance(self.layer.padding, str)
        down, right = self.layer.padding
        return down, right

    def _inputs_of(self, patients: int) -> Tensor:
        (kh, kw), (sh, sw), (dh, dw) = self.layer.kernel_size, self.layer.stride, self.layer.dilation
        ph, pw = self._padding
        height, width = self._gradient.shape[2:]
        padded = functional.pad(self.input.permute(0, 2, 3, 1), (0, 0, pw, pw, ph, ph)).contiguous()
        row, down, right, _ = padded.stride()
        windows = padded.as_strided(
            (len(padded), height, width, kh, kw, padded.shape[3]),
            (row, sh * down, sw * right, dh * down, dw * right, 1),
        )
        return windows.reshape(patients, -1, kh * kw * padded.shape[3])

    def _gradients_of(self, gradient: Tensor, patients: int) -> Tensor:
        by_view = gradient.reshape(patients, -1, gradient.shape[1], gradient[0, 0].numel())
        return by_view.transpose(1, 2).flatten(2)

    def _contract(self, rows: Tensor, gradient: Tensor) -> Tensor:
        layer, weight = self.layer, self._weights()[0]
        form = (list(layer.stride), list(self._padding), list(layer.dilation), False, [0, 0], 1)
        _, result, _ = torch.ops.aten.convolution_backward(gradient, rows, weight, None, *form, [False, True, False])
        assert isinstance(result, Tensor)
        return result

    def _as_weight(self, matrix: Tensor) -> Tensor:
        out, channels, height, width = self.layer.weight.shape
        return matrix.view(out, height, width, channels).permute(0, 3, 1, 2)
