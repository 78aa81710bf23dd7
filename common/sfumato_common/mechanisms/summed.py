"""The Gaussian mechanism on a sum over sites, each of which adds a part of the noise (Kairouz, Liu and Steinke 2021).

Only the sum is seen (`secure_sum`). Site i rounds its value to a public grid, rounds noise N_i of its own to it, and
adds the two; sums are exact, in whole cells. With m honest sites and N_i of deviation s, in cells, the law of
round(N_1) + ... + round(N_m) is next to one that post-processes a real Gaussian mechanism of variance m s^2:

- P(round(N_i) = j) is the density of N_i + U_i at j, U_i uniform on (-1/2, 1/2). So the characteristic function of
  round(N_i), t in [-pi, pi], is the sum over all whole k of psi(t + 2 pi k) (Poisson summation), where
  psi(t) = exp(-s^2 t^2 / 2) sin(t / 2) / (t / 2). That of the sum of m is its m-th power.
- The density of N(0, m s^2) + U_1 + ... + U_m, at whole numbers alone, has the sum over k of psi(t + 2 pi k)^m. It is
  a law (psi vanishes at 2 pi k, so it adds up to 1), and just that of round(N(0, m s^2) + U_2 + ... + U_m): over a
  cell, that density is the integral of the one without U_1.
- To a whole number v that rounding may be done after: v + round(W) = round(v + W). So what is released by the second
  law is a function of v + N(0, m s^2), the real mechanism, and of noise that says nothing.
- For t in [-pi, pi] and k other than 0, |psi(t + 2 pi k)| <= rho^((2 |k| - 1)^2) 2 / ((2 |k| - 1) pi) with
  rho = exp(-pi^2 s^2 / 2); all together C rho at most, C = 4 / (pi (1 - rho^8)). Characteristic functions and psi are
  at most 1 in size, so that the two differ by (m + 1) C rho at most at every t, and the two laws by as much at every
  whole number.
- Beyond r s sqrt(m) + m / 2 either law has the mass at most that N(0, 1) has beyond r, as roundings and uniforms move
  it by m / 2. So the total variation is at most `law_distance`.

That is 1.6e-23 a number, all of it from the tails, for deviations from 4 cells on; ours are thousands. The discrete
Gaussian needs no such room: with few bits a number it is the better choice (Kairouz, Liu and Steinke 2021, theorem 1),
and a sum of discrete Gaussians is no discrete Gaussian either. With 64 bits, continuous noise and rounding will do.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sfumato_common.mechanisms.grid import LARGEST_DRAW, grid_of, peak_of, require_exact, to_cells
from sfumato_common.mechanisms.noise import Float64, NoiseSource
from sfumato_common.types import FloatArray

Words = npt.NDArray[np.uint64]
Cells = npt.NDArray[np.int64]
# values and noise stay below 2^52 cells each (`grid.require_exact`), so that sums of so many fit into 63 bits
MOST_SITES = 512
# far beyond where the law of the sum can be told from a Gaussian's; no plan comes near it
_LEAST_CELLS = 64.0
_FARTHEST = 10.0


def gaussian_part(
    value: FloatArray, sensitivity: float, noise_multiplier: float, among: int, noise: NoiseSource
) -> Cells:
    """A site's part [d] of the Gaussian mechanism on a sum, in cells of `grid_of(sensitivity)`: value and own noise.

    The noise has `noise_multiplier` / sqrt(`among`) times the sensitivity, which is widened for rounding as that of
    `gaussian_release` is: one patient is at one site. Raises ValueError as that does, and for noise too fine for the
    law of the sum.
    """
    sensitivity, noise_multiplier = float(sensitivity), float(noise_multiplier)
    if not (sensitivity > 0 and noise_multiplier > 0 and math.isfinite(sensitivity * noise_multiplier)):
        raise ValueError("sensitivity and noise multiplier must be finite and positive")
    if not 1 <= among <= MOST_SITES:
        raise ValueError("the noise of a sum is shared among a number of sites that a plan can have")
    peak, grid = peak_of(value), grid_of(sensitivity)
    scale = noise_multiplier / math.sqrt(among) * (sensitivity + grid * math.sqrt(value.size))
    require_exact(grid, peak, LARGEST_DRAW * scale)
    if scale < _LEAST_CELLS * grid:
        raise ValueError("a site's part of the noise is too small beside the grid; state a larger noise multiplier")
    drawn = noise.normal(value.shape, scale)
    if drawn.shape != value.shape:
        raise ValueError("the noise source must draw one value for each coordinate")
    cells = to_cells(value, 1.0 / grid)
    cells += to_cells(drawn, 1.0 / grid)
    return cells.astype(np.int64)


def sum_of_cells(cells: Cells, sensitivity: float) -> Float64:
    """The released sum [d] of parts in cells; exact up to 2^53 of them."""
    return cells.astype(np.float64) * grid_of(sensitivity)


def law_distance(sites: int, deviation: float) -> float:
    """Bound on the total variation, a coordinate, of the two laws above: m = `sites`, s = `deviation` in cells."""
    rho = math.exp(-((math.pi * deviation) ** 2) / 2.0)
    apart = (sites + 1) * 4.0 / math.pi * rho / (1.0 - rho**8)
    within = math.ceil(_FARTHEST * deviation * math.sqrt(sites) + sites / 2.0)
    return (within + 0.5) * apart + math.erfc(_FARTHEST / math.sqrt(2.0))
