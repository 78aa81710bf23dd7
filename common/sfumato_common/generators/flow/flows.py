"""The contract of flows on whitened images, and the layer they all begin with: a refit of scales.

A flow takes whitened images u [N, C, S, S] and conditions [N, K] to latents that are standard normal if the model is
right, [N, C, S, S] or, for mechanisms that noise them, flat [N, D]. Untrained, every flow is the identity, so that its
likelihood is the spectral release's. Every operation works per record, in any floating type, on the inputs' device.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato_common.generators.spectral.dct import dct_matrix
from sfumato_common.generators.spectral.whitening import standard_normal_log_prob

# knots a side of a refit: enough to follow a spectrum, and few, because DP noise grows with the number of weights
KNOTS = 16


class Flow(nn.Module):
    """What every architecture gives: `forward`, `inverse`, and flat latents; subclasses fill `_forward`, `_inverse`."""

    # the whole loss, because parameters enter the log-determinant outside any layer
    private_engine: ClassVar[str] = "vmap"

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.refit = Refit(channels)

    def forward(self, u: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Whitened images [N, C, S, S] and conditions [N, K] -> latents of the same shape and log|det| [N]."""
        u, first = self.refit(u)
        v, second = self._forward(u, condition)
        return v, first + second

    def inverse(self, v: Tensor, condition: Tensor) -> Tensor:
        """Inverse of `forward`: latents [N, C, S, S] -> whitened images."""
        return self.refit.inverse(self._inverse(v, condition))

    def latent(self, u: Tensor, condition: Tensor) -> Tensor:
        """Whitened images [N, C, S, S] -> all latents, standardised and concatenated, [N, D = C S S]."""
        return self._flat(self.forward(u, condition)[0])

    def from_latent(self, z: Tensor, condition: Tensor) -> Tensor:
        """Inverse of `latent`: [N, D] -> whitened images [N, C, S, S]."""
        return self.inverse(self._unflat(z), condition)

    def _forward(self, u: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def _inverse(self, v: Tensor, condition: Tensor) -> Tensor:
        raise NotImplementedError

    def _flat(self, v: Tensor) -> Tensor:
        return v.flatten(1)

    def _unflat(self, z: Tensor) -> Tensor:
        size = self.size_of(z)
        return z.view(len(z), self.channels, size, size)

    def size_of(self, z: Tensor) -> int:
        """S of flat latents [N, C S S]."""
        return math.isqrt(z.shape[1] // self.channels)


class Refit(nn.Module):
    """Scale of every frequency, then of every place: smooth surfaces through KNOTS x KNOTS knots a channel.

    The spectral release knows frequencies above its band by a public power law only, and gives all places one variance.
    What it got wrong there is common to all images, so few weights with strong gradients mend it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.zeros(channels, KNOTS, KNOTS))
        self.place = nn.Parameter(torch.zeros(channels, KNOTS, KNOTS))

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """[N, C, S, S] -> the same shape and log|det| [N]."""
        matrix, frequency, place = self._surfaces(u)
        u = matrix.T @ ((matrix @ u @ matrix.T) * frequency.exp()) @ matrix * place.exp()
        return u, (frequency.sum() + place.sum()).expand(len(u))

    def inverse(self, v: Tensor) -> Tensor:
        """Inverse of `forward`."""
        matrix, frequency, place = self._surfaces(v)
        spectrum = matrix @ (v * (-place).exp()) @ matrix.T
        return matrix.T @ (spectrum * (-frequency).exp()) @ matrix

    def _surfaces(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        matrix, hats = (torch.from_numpy(table).to(u) for table in _tables(u.shape[-1]))
        return matrix, hats @ self.frequency @ hats.T, hats @ self.place @ hats.T


@lru_cache(maxsize=8)
def _tables(size: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The DCT matrix [S, S], and piecewise linear interpolation [S, KNOTS] of evenly spaced knots."""
    position = np.linspace(0.0, KNOTS - 1.0, size)
    hats = np.maximum(0.0, 1.0 - np.abs(position[:, None] - np.arange(KNOTS)[None, :]))
    return dct_matrix(size), hats


def condition_planes(condition: Tensor, x: Tensor) -> Tensor:
    """Conditions [N, K] as planes beside x: [N, C, H, W] -> [N, C + K, H, W]."""
    planes = condition[:, :, None, None].expand(-1, -1, x.shape[2], x.shape[3]).to(x)
    return torch.cat([x, planes], dim=1)


def squeeze_repeatedly(u: Tensor, times: int) -> Tensor:
    """`times` squeezes: [N, C, S, S] -> [N, C 4^times, S / 2^times, S / 2^times]."""
    for _ in range(times):
        u = functional.pixel_unshuffle(u, 2)
    return u


def unsqueezed(u: Tensor, times: int) -> Tensor:
    """Inverse of `squeezed`."""
    for _ in range(times):
        u = functional.pixel_shuffle(u, 2)
    return u


def flow_loss(forward: nn.Module, u: Tensor, condition: Tensor) -> Tensor:
    """Negative log-likelihood of whitened images in nats a dimension, one value a record [N].

    Images are dequantised uniformly. Learned (variational; Ho et al. 2019) noise could gain 0.002 bits a dimension at
    most: on the phantom at 64 px no DCT coefficient spreads less than seven times as wide as the rounding's noise.
    """
    v, log_det = forward(u, condition)
    nats: Tensor = -(standard_normal_log_prob(v) + log_det)
    return nats / u[0].numel()
