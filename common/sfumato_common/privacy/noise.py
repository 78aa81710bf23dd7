"""Randomness for privacy: ChaCha20 key stream (RFC 8439) and Box-Muller normals in float64.

torch's and numpy's default generators are not cryptographic: who sees enough of their output can predict the rest and
subtract the noise. `SecureNoise` is keyed from the operating system and never from a seed; `TestNoise` is
reproducible, says so loudly, and gives no privacy at all.
"""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

Float64 = npt.NDArray[np.float64]


class NoiseSource(Protocol):
    """Where every mechanism and sampler takes its randomness from; `test` is True when it is predictable."""

    @property
    def test(self) -> bool:
        """True when the noise is reproducible and therefore protects nobody."""
        ...

    def normal(self, shape: Sequence[int], scale: float) -> Float64:
        """Independent N(0, scale^2), float64."""
        ...

    def uniform(self, shape: Sequence[int]) -> Float64:
        """Independent uniforms, strictly inside (0, 1), float64."""
        ...

    def torch_seed(self) -> int:
        """A fresh 63-bit seed for a torch.Generator that samples batches or synthetic images."""
        ...


class _KeyStream:
    """ChaCha20 key stream (RFC 8439) read as uniforms with 53 random bits."""

    def __init__(self, key: bytes) -> None:
        # the key is used once, so counter and nonce may start at zero; 2^32 blocks are 256 GiB, far beyond one process
        self._stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        return np.frombuffer(self._stream.update(bytes(8 * count)), dtype="<u8")

    def uniform(self, shape: Sequence[int]) -> Float64:
        """Independent uniforms, strictly inside (0, 1), float64."""
        bits = self.words(math.prod(shape)) >> np.uint64(11)
        return ((bits.astype(np.float64) + 0.5) * 2.0**-53).reshape(tuple(shape))

    def normal(self, shape: Sequence[int], scale: float) -> Float64:
        """Independent N(0, scale^2) by Box and Muller (1958), float64. Raises ValueError for a negative scale."""
        if not (scale >= 0 and math.isfinite(scale)):
            raise ValueError("the noise scale must be a finite number >= 0")
        count = math.prod(shape)
        half = (count + 1) // 2
        uniforms = self.uniform((2, half))
        radius = np.sqrt(-2.0 * np.log(uniforms[0]))
        angle = (2.0 * math.pi) * uniforms[1]
        pairs = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
        return (pairs * scale).reshape(tuple(shape))

    def torch_seed(self) -> int:
        """A fresh 63-bit seed for a torch.Generator that samples batches or synthetic images."""
        return int(self.words(1)[0] >> np.uint64(1))


class SecureNoise(_KeyStream):
    """The production source: ChaCha20 keyed with 256 bits from the operating system; cannot be seeded."""

    test = False

    def __init__(self) -> None:
        super().__init__(os.urandom(32))


class TestNoise(_KeyStream):
    """Reproducible noise for tests and demos; whoever knows the seed can remove it, so it protects nobody."""

    test = True
    __test__ = False  # not a test case, whatever pytest makes of the name

    def __init__(self, seed: int) -> None:
        warnings.warn("TestNoise is in use: reproducible noise, NO privacy protection", stacklevel=2)
        super().__init__(hashlib.sha256(f"sfumato test noise {seed}".encode()).digest())
