"""Procedural textures to pretrain on: coloured noise, gratings, smooth blobs, after what is known of natural images.

Noise whose amplitude falls as 1/f^a, a in 0.5..2 (Field 1987), oriented gratings, and blobs on such a ground. They
contain no anatomy and no patient; the kind of a texture is its label.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sfumato_common.types import ByteImages

KINDS = ("noise", "gratings", "blobs")
Field = npt.NDArray[np.float64]


def textures(seed: int, count: int, size: int, channels: int = 1) -> tuple[ByteImages, npt.NDArray[np.int64]]:
    """Images uint8 [N, S, S] or [N, S, S, 3] and the index of each one's kind int64 [N]; deterministic in all four."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, len(KINDS), count)
    drawn = [np.stack([_DRAW[kind](rng, size) for _ in range(channels)], axis=-1) for kind in kinds]
    images = np.rint(255 * np.stack(drawn)).astype(np.uint8)
    return images[..., 0] if channels == 1 else images, kinds.astype(np.int64)


def _noise(rng: np.random.Generator, size: int) -> Field:
    """Gaussian noise with a 1/f^a amplitude spectrum, [S, S] in 0..1."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = 1.0 / size  # the mean gets the lowest frequency's amplitude
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) * frequency ** -rng.uniform(0.5, 2.0)
    return _scale_randomly(rng, np.fft.irfft2(spectrum, s=(size, size)))


def _gratings(rng: np.random.Generator, size: int) -> Field:
    """One to three sinusoidal gratings of any direction, [S, S] in 0..1."""
    row, column = np.mgrid[0:size, 0:size] / size
    total = np.zeros((size, size))
    for _ in range(rng.integers(1, 4)):
        angle, cycles, phase = rng.uniform(0, np.pi), 2 ** rng.uniform(0, 3.5), rng.uniform(0, 2 * np.pi)
        total += np.sin(2 * np.pi * cycles * (np.cos(angle) * column + np.sin(angle) * row) + phase)
    return _scale_randomly(rng, total + 0.1 * rng.standard_normal((size, size)))


def _blobs(rng: np.random.Generator, size: int) -> Field:
    """Three to twelve elliptic blobs with soft edges on coloured noise, [S, S] in 0..1."""
    row, column = np.mgrid[0:size, 0:size] / size
    total = rng.uniform(0.2, 1.0) * _noise(rng, size)
    for _ in range(rng.integers(3, 13)):
        y, x, wide, high = *rng.uniform(0, 1, 2), *rng.uniform(0.03, 0.3, 2)
        inside = 1.0 - np.hypot((column - x) / wide, (row - y) / high)
        total += rng.uniform(-1, 1) / (1.0 + np.exp(-np.clip(rng.uniform(4, 30) * inside, -60, 60)))
    return _scale_randomly(rng, total)


def _scale_randomly(rng: np.random.Generator, field: Field) -> Field:
    """Scaled to a random level and contrast, clipped to 0..1."""
    spread = max(float(field.std()), 1e-9)
    level = rng.uniform(0.3, 0.7) + rng.uniform(0.08, 0.28) * (field - field.mean()) / spread
    return np.asarray(np.clip(level, 0.0, 1.0))


_DRAW = (_noise, _gratings, _blobs)
