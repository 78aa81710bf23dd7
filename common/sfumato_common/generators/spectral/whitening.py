"""The spectral release as a density: an exact, invertible, class-conditional Gaussian on whole images (torch).

Low DCT frequencies get the released mean and covariance; all others are independent with the public power law's scale
times the class's released amplitude. Whitened coefficients go back through the inverse DCT, so latents are
images too (ZCA whitening): a flow or generator on top sees local structure, and starts exactly at this model.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn

from sfumato_common.errors import VerificationError
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.spectral.dct import dct_matrix, public_scale, quantisation
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.spectral.moment_layout import Float64
from sfumato_common.generators.white_form import WhiteForm
from sfumato_common.generators.whitening import Factors, per_class
from sfumato_common.mechanisms.draws import Draws, TorchDraws
from sfumato_common.mechanisms.streams import SecretStream
from sfumato_common.types import Arrays, ByteImages

# Standard deviation of latents above the band when images are drawn (the density itself keeps 1): independent
# frequencies carry no anatomy, so at full strength they are only grain.
TAIL_TEMPERATURE = 0.3


class SpectralModel(nn.Module):
    """Class-conditional Gaussian over images [N, C, S, S]; has buffers only and nothing to train.

    It is the `Whitening` of pixels.
    """

    matrix: Tensor
    mean: Tensor
    scale: Tensor
    tail: Tensor
    _log_scale: Tensor | None
    shares: Tensor
    pixels = True

    def __init__(self, plan: PublicPlan, arrays: Arrays) -> None:
        """`arrays` is the released spectral model: shares, mean, factor, signal, tail (see `fit_release`)."""
        super().__init__()
        layout = Layout.of(plan)
        self.layout = layout
        size, band = layout.size, layout.bandwidth
        law = public_scale(size, layout.bits) * arrays["tail"].astype(np.float64)[:, None, None]
        tail = np.sqrt(law**2 + quantisation(layout.bits) ** 2)
        tail[:, :band, :band] = 1.0
        self._volumes = np.log(layout.scale).sum(), layout.channels * np.log(tail).sum(axis=(1, 2))
        for name, value in {
            "matrix": dct_matrix(size),
            "mean": arrays["mean"],
            "scale": layout.scale,
            "tail": tail,
            "shares": arrays["shares"],
        }.items():
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32))
        self.register_buffer("_log_scale", None)
        self.factors = Factors(arrays["factor"])

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Images [N, C, S, S] in [-1, 1] and labels [N] -> whitened images of the same shape, log|det| [N]."""
        coefficients = self.matrix @ x @ self.matrix.T
        white = coefficients / self.tail[y][:, None]
        low = self._low(coefficients) / self.scale
        self._set_low(white, per_class(self.factors.inverses, low - self.mean[y], y))
        return self.matrix.T @ white @ self.matrix, -self.log_scale[y]

    @property
    def log_scale(self) -> Tensor:
        """Logarithm [G] of how much `decode` enlarges volumes."""
        if self._log_scale is None:
            band, above = self._volumes
            log_scale = torch.tensor(self.factors.log_det() + band + above, dtype=torch.float32)
            self._log_scale = log_scale.to(self.matrix.device) - self.factors.log_stretch
        return self._log_scale

    @property
    def form(self) -> WhiteForm:
        """Of whitened images: that of the images."""
        return WhiteForm(self.layout.channels, self.layout.size, self.layout.size**2)

    @property
    def temperature(self) -> Float64:
        """[C S S]: of each cosine of a latent that images are drawn from (`draw_latent`)."""
        within = np.zeros((self.layout.channels, self.layout.size, self.layout.size), dtype=bool)
        within[:, : self.layout.bandwidth, : self.layout.bandwidth] = True
        return np.where(within, 1.0, TAIL_TEMPERATURE).ravel()

    def records(self, images: ByteImages) -> ByteImages:
        """The images themselves."""
        return images

    def spread(self, values: Tensor, draws: SecretStream | TorchDraws) -> Tensor:
        """Dequantised images [N, C, S, S]."""
        return dequantise(values, draws, self.layout.bits)

    def white(self, spread: Tensor, y: Tensor) -> Tensor:
        """Whitened images alone, without the density's part."""
        return self.encode(spread, y)[0]

    def draw_noise(self, count: int, draws: Draws) -> tuple[Tensor, ...]:
        """Nothing: a whitened image is all of an image."""
        del count, draws
        return ()

    def decode(self, u: Tensor, y: Tensor, *noise: Tensor) -> Tensor:
        """Inverse of `encode`: whitened images and labels -> images [N, C, S, S] (not clamped)."""
        assert not noise, "nothing stands beside pixels"
        white = self.matrix @ u @ self.matrix.T
        coefficients = white * self.tail[y][:, None]
        self._set_low(coefficients, (per_class(self.factors, self._low(white), y) + self.mean[y]) * self.scale)
        return self.matrix.T @ coefficients @ self.matrix

    def log_prob(self, x: Tensor, y: Tensor) -> Tensor:
        """Exact log density [N] in nats, over the volume of [-1, 1]^(C S S)."""
        u, log_det = self.encode(x, y)
        return standard_normal_log_prob(u) + log_det

    def draw_latent(self, y: Tensor, draws: Draws) -> Tensor:
        """Latents [N, C, S, S] for components [N]: unit normal within the band, cooler above it."""
        size = self.layout.size
        # drawn on the CPU as a rule, and moved: a seed means the same images on every machine
        white = draws.normal((len(y), self.layout.channels, size, size)).to(self.matrix.device)
        low = self._low(white)
        white = white * TAIL_TEMPERATURE
        self._set_low(white, low)
        return self.matrix.T @ white @ self.matrix

    def sample(self, y: Tensor, draws: Draws) -> Tensor:
        """Images [N, C, S, S], clamped to [-1, 1], for labels [N]."""
        return self.decode(self.draw_latent(y, draws), y).clamp(-1.0, 1.0)

    def low(self, u: Tensor) -> Tensor:
        """Whitened features [N, d] of whitened images [N, C, S, S]."""
        return self._low(self.matrix @ u @ self.matrix.T)

    def features_from(self, low: Tensor, y: Tensor) -> Tensor:
        """Features [N, d], about the component's mean, of whitened ones [N, d]."""
        return per_class(self.factors, low, y)

    def whiten(self, features: Tensor, y: Tensor) -> Tensor:
        """Whitened features [N, d] of features [N, d] about the component's mean."""
        return per_class(self.factors.inverses, features, y)

    def moved(self, offset: Tensor, scale: Tensor) -> SpectralModel:
        """The same, after what is decoded was shifted and stretched by [G, d] in whitened features."""
        moved = copy.copy(self)
        moved._modules = {"factors": self.factors.stretched(scale)}
        mean = self.mean - moved.factors.shift(offset)
        # all else is shared, and never written to
        moved._buffers = {**self._buffers, "mean": mean, "_log_scale": None}
        return moved

    def _low(self, coefficients: Tensor) -> Tensor:
        band = self.layout.bandwidth
        return coefficients[:, :, :band, :band].flatten(1)

    def _set_low(self, coefficients: Tensor, low: Tensor) -> None:
        band = self.layout.bandwidth
        coefficients[:, :, :band, :band] = low.view(-1, self.layout.channels, band, band)


def spectral_model(plan: PublicPlan, arrays: Arrays) -> SpectralModel:
    """The released spectral model from arrays named `spectral/...`. Raises VerificationError when one is missing."""
    try:
        own = {name: arrays[f"spectral/{name}"] for name in ("shares", "mean", "factor", "signal", "tail")}
    except KeyError as error:
        raise VerificationError(f"the released array {error} is missing; ask the coordinator again") from None
    return SpectralModel(plan, own)


def standard_normal_log_prob(u: Tensor) -> Tensor:
    """Log density [N] of a unit normal at u [N, ...], in nats."""
    flat = u.flatten(1)
    return -0.5 * (flat.square().sum(dim=1) + flat.shape[1] * math.log(2.0 * math.pi))


def dequantise(images: Tensor, draws: SecretStream | TorchDraws, bits: int = 8) -> Tensor:
    """Uniform dequantisation: images on the grid of [-1, 1] spread over their bins, 2/255 wide for 8 bits.

    How a patient's images are spread is drawn from the secret stream.
    """
    return images + (draws.uniform(images.shape) - 0.5) * (2.0 / ((1 << bits) - 1))


def bits_per_dim(log_prob: Tensor, dimensions: int, bits: int = 8) -> Tensor:
    """Bits per dimension of images of `bits` bits from log densities in nats over [-1, 1] (Theis et al. 2016)."""
    return -log_prob / (dimensions * math.log(2.0)) + math.log2(((1 << bits) - 1) / 2.0)
