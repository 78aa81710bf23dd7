"""Layers that keep what the book-keeping engine needs for per-patient gradients of their own parameters.

A tap stands where its layer stood: it computes the same with detached weights and keeps its input and the autograd edge
of its output. Rows are patient-major throughout: [n * m, ...] is m rows for each of n patients.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional

from sfumato_client.training.dp.contract import by_patient, squared_norms, weighted_sum
from sfumato_common.errors import ConfigError


class Tap(nn.Module, ABC):
    """One layer that owns parameters; a pass goes `forward`, `receive`, `weighted_sums` or `gradient_of`, `release`."""

    def __init__(self, name: str, layer: nn.Module) -> None:
        super().__init__()
        self.name, self.layer = name, layer
        self.edge: GradientEdge | None = None
        self._samples: list[Tensor] = []

    @property
    def alone(self) -> bool:
        """Whether gradients are made by `gradient_of`, one patient at a time, instead of by `weighted_sums`."""
        return False

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output for `x`, cut off from its weights. Raises ConfigError when the layer is used twice."""
        if self.edge is not None:
            raise ConfigError(f"engine 'bookkeeping' cannot follow '{self.name}', used twice; use the engine 'vmap'")
        y = self._output(x)
        if not y.requires_grad:
            y.requires_grad_()
        self.input, self.edge = x.detach(), get_gradient_edge(y)
        return y

    @abstractmethod
    def receive(self, gradient: Tensor, patients: int) -> Tensor:
        """Squared norms [n] float64 of `weighted_sums` will add up, from the gradient at the output [n * m, ...]."""

    @abstractmethod
    def weighted_sums(self, factors: Tensor) -> list[Tensor]:
        """Sum over patients of factor [n] times gradient, one tensor for each of the layer's parameters."""

    def gradient_of(self, patient: int) -> list[Tensor]:
        """One patient's gradient, only where `alone`."""
        raise AssertionError(f"'{self.name}' does not work one patient at a time")

    def release(self) -> None:
        """Forget the pass: a tap must not hold images or gradients between batches."""
        self.edge, self._samples = None, []
        self.__dict__.pop("input", None)

    @abstractmethod
    def _output(self, x: Tensor) -> Tensor:
        """What the layer computes, with detached weights."""

    def _weights(self) -> tuple[Tensor, Tensor | None]:
        weight, bias = self.layer.weight, getattr(self.layer, "bias", None)
        assert isinstance(weight, Tensor)
        return weight.detach(), bias.detach() if isinstance(bias, Tensor) else None


class RowTap(Tap):
    """A tap that makes every row's gradient: for layers with few parameters."""

    def receive(self, gradient: Tensor, patients: int) -> Tensor:
        """Squared norms [n] of the patients' gradients."""
        self._samples = [by_patient(part, patients) for part in self._row_gradients(gradient)]
        return torch.stack([squared_norms(part) for part in self._samples]).sum(dim=0)

    def weighted_sums(self, factors: Tensor) -> list[Tensor]:
        """Sum over patients of factor [n] times gradient."""
        return [weighted_sum(part, factors) for part in self._samples]

    @abstractmethod
    def _row_gradients(self, gradient: Tensor) -> list[Tensor]:
        """Gradients of the layer's parameters, one a row: [n * m, *parameter.shape]."""


class _ScaleTap(RowTap):
    """Normalisation with scale and shift: y = scale * normalised(x) + shift."""

    def _row_gradients(self, gradient: Tensor) -> list[Tensor]:
        parts = [self._reduce(gradient * self._normalise(self.input))]
        return parts if self._weights()[1] is None else [*parts, self._reduce(gradient)]

    def _reduce(self, product: Tensor) -> Tensor:
        return _over_positions(product)

    @abstractmethod
    def _normalise(self, x: Tensor) -> Tensor:
        """The layer's output before scale and shift."""


def _over_positions(product: Tensor) -> Tensor:
    """[R, C, ...] -> [R, C]."""
    return product.flatten(2).sum(dim=2) if product.ndim > 2 else product


class GroupNormTap(_ScaleTap):
    """nn.GroupNorm (Wu and He 2018)."""

    layer: nn.GroupNorm

    def _output(self, x: Tensor) -> Tensor:
        return functional.group_norm(x, self.layer.num_groups, *self._weights(), self.layer.eps)

    def _normalise(self, x: Tensor) -> Tensor:
        return functional.group_norm(x, self.layer.num_groups, eps=self.layer.eps)


class InstanceNormTap(_ScaleTap):
    """nn.InstanceNorm2d (Ulyanov et al. 2016) without running statistics."""

    layer: nn.InstanceNorm2d

    def _output(self, x: Tensor) -> Tensor:
        weight, bias = self._weights()
        return functional.instance_norm(x, weight=weight, bias=bias, eps=self.layer.eps)

    def _normalise(self, x: Tensor) -> Tensor:
        return functional.instance_norm(x, eps=self.layer.eps)


class LayerNormTap(_ScaleTap):
    """nn.LayerNorm (Ba et al. 2016)."""

    layer: nn.LayerNorm

    def _output(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, list(self.layer.normalized_shape), *self._weights(), self.layer.eps)

    def _normalise(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, list(self.layer.normalized_shape), eps=self.layer.eps)

    def _reduce(self, product: Tensor) -> Tensor:
        return product.reshape(len(product), -1, *self.layer.normalized_shape).sum(dim=1)


class PReLUTap(RowTap):
    """nn.PReLU (He et al. 2015), one slope or one a channel."""

    layer: nn.PReLU

    def _output(self, x: Tensor) -> Tensor:
        return functional.prelu(x, self._weights()[0])

    def _row_gradients(self, gradient: Tensor) -> list[Tensor]:
        product = gradient * self.input.clamp(max=0.0)
        if self.layer.num_parameters == 1:
            return [product.flatten(1).sum(dim=1, keepdim=True)]
        return [_over_positions(product)]
