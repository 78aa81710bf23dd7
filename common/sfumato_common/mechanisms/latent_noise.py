"""Noise on single latent vectors, for images and tables alike: the mechanism, and what it leaves of a latent.

The papers (DP-GLOW, arXiv 2212.10688; CADP, arXiv 2207.14625) mean latents that are standard normal where the flow is
right. How far such a latent spreads once it is clipped, and how far its noise does, follow from public numbers alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sfumato_common.mechanisms.clipping import Clip
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.types import FloatArray

Float64 = npt.NDArray[np.float64]
_POINTS = 2**14  # of the grid that a density of L1 norms is computed on
_SPREADS = 12.0  # standard deviations of an L1 norm that the grid reaches to either side of its mean


@dataclass(frozen=True)
class LatentMechanism:
    """Rows of `width` latents, one a patient, each clipped on its own to `radius` and noised once.

    Laplace noise for `epsilon`, the total over all coordinates, or Gaussian noise of `noise_multiplier` x 2 radius.
    """

    clip: Clip
    radius: float
    width: int
    epsilon: float | None = None
    noise_multiplier: float | None = None

    def released(self, rows: FloatArray, recorder: NoiseRecorder) -> Float64:
        """Rows [N, width] clipped and noised: the only place where latents of records become what may leave."""
        assert rows.shape[1] == self.width, "the noise is scaled to this many coordinates"
        if self.epsilon is not None:
            return recorder.local_laplace(rows, self.radius, self.epsilon, self.clip)
        assert self.noise_multiplier is not None, "a mechanism has one of the two"
        return recorder.local_gaussian(rows, self.radius, self.noise_multiplier)

    @property
    def noise(self) -> float:
        """Standard deviation of a coordinate's noise: sqrt(2) b with b = L1 diameter / epsilon, or the Gaussian's."""
        if self.epsilon is not None:
            diameter = 2.0 * self.radius * (self.width if self.clip == "elementwise" else 1)
            return math.sqrt(2.0) * diameter / self.epsilon
        assert self.noise_multiplier is not None, "a mechanism has one of the two"
        return self.noise_multiplier * 2.0 * self.radius

    @property
    def signal(self) -> float:
        """Standard deviation of a coordinate of a standard normal latent after the clip."""
        return clipped_deviation(self.clip, self.radius, self.width)

    @property
    def spread(self) -> float:
        """Standard deviation of a released coordinate."""
        return math.hypot(self.signal, self.noise)

    @property
    def correlation(self) -> float:
        """Of a released coordinate with the record's own, clipped one."""
        return self.signal / self.spread


def clipped_deviation(clip: Clip, radius: float, width: int) -> float:
    """Standard deviation of a coordinate of x ~ N(0, I) in `width` dimensions, clipped to `radius`.

    Elementwise: E min(|x_1|, r)^2 = P(|x_1| < r) - 2 r phi(r) + r^2 P(|x_1| > r). In an L2 ball the squared norm is chi
    squared and independent of the direction, so E[x_1^2 min(1, r / |x|)^2] = P(chi^2_{D + 2} <= r^2) + r^2 / D
    P(chi^2_D > r^2). In an L1 ball the norm S and the coordinate are not independent: see `_l1_variance`.
    """
    if clip == "elementwise" or width == 1:
        inside = math.erf(radius / math.sqrt(2.0))
        density = math.exp(-(radius**2) / 2.0) / math.sqrt(2.0 * math.pi)
        # for small radii the first two terms cancel to r^3: never below 0
        return math.sqrt(max(0.0, inside - 2.0 * radius * density + radius**2 * (1.0 - inside)))
    if clip == "l2":
        from scipy.special import gammainc, gammaincc

        half = radius**2 / 2.0
        return math.sqrt(gammainc(width / 2.0 + 1.0, half) + radius**2 / width * gammaincc(width / 2.0, half))
    return math.sqrt(_l1_variance(radius, width))


@lru_cache(maxsize=64)
def _l1_variance(radius: float, width: int) -> float:
    """E[x_1^2 min(1, r / S)^2] with S = |x_1| + ... + |x_D|, numerically, for D = `width` > 1.

    It is the integral of min(1, r / s)^2 m(s), where m is the density of S weighted by x_1^2: the convolution of x^2
    times a half-normal density with the density of D - 1 half-normals. So its Fourier transform is psi phi^(D - 1),
    phi(t) = w(t / sqrt 2) by the Faddeeva function and psi = -phi''. One inverse transform gives m on a grid.
    """
    from scipy.special import wofz

    mean, deviation = width * math.sqrt(2.0 / math.pi), math.sqrt(width * (1.0 - 2.0 / math.pi))
    # a few units more on each side, as the weighted coordinate is longer than the others
    span = 2.0 * (_SPREADS * deviation + 10.0)
    step = span / _POINTS
    t = 2.0 * math.pi * np.fft.fftfreq(_POINTS, step)
    phi = wofz(t / math.sqrt(2.0))
    psi = phi - t**2 * phi + 1j * t * math.sqrt(2.0 / math.pi)
    s = mean + step * (np.arange(_POINTS) - _POINTS // 2)
    weighted = np.fft.fft(psi * phi ** (width - 1) * np.exp(-1j * t * s[0])).real / _POINTS
    # no mass lies at or below 0; what the transform leaves there is rounding
    inside = s > 0
    return float((weighted[inside] * np.minimum(1.0, radius / s[inside]) ** 2).sum())
