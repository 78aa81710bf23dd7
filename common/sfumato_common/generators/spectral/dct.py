"""The orthonormal discrete cosine transform (DCT-II) and the public power law that scales its coefficients.

The power law stands in for knowledge of the data: radiographs, like natural images (Field 1987), have amplitudes that
fall as a power of the spatial frequency. Its three constants were fitted to the procedural phantom, which is public;
nothing here, and no clip radius, was ever chosen from patients' images.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

AMPLITUDE = 0.06
KNEE = 5.0  # half periods a side; the spectrum is flat below
EXPONENT = 1.8


def quantisation(bits: int) -> float:
    """Standard deviation of rounding to that many bits, in units of the range [-1, 1]: nothing is known better."""
    return 2.0 / ((1 << bits) - 1) / math.sqrt(12.0)


def dct_matrix(size: int) -> npt.NDArray[np.float64]:
    """Orthonormal DCT-II matrix [S, S]: `coefficients = matrix @ image @ matrix.T`, and its transpose inverts it."""
    position = np.arange(size) + 0.5
    matrix = np.cos(math.pi / size * np.outer(np.arange(size), position)) * math.sqrt(2.0 / size)
    matrix[0] /= math.sqrt(2.0)
    return matrix


def public_scale(size: int, bits: int = 8) -> npt.NDArray[np.float64]:
    """Expected standard deviation of every DCT coefficient [S, S] of an image in [-1, 1], by the public power law.

    Its floor is the rounding of images of `bits` bits.
    """
    frequency = np.arange(size, dtype=np.float64)
    squared = frequency[:, None] ** 2 + frequency[None, :] ** 2
    law = size * AMPLITUDE * (1.0 + squared / KNEE**2) ** (-EXPONENT / 2.0)
    return np.sqrt(law**2 + quantisation(bits) ** 2)
