"""Randomness for privacy: ChaCha20 key stream (RFC 8439) and Box-Muller normals in float64.

torch's and numpy's default generators are not cryptographic: who sees enough of their output can predict the rest and
subtract the noise. `SecureNoise` is keyed from the operating system and never from a seed; `TestNoise` is
reproducible, says so loudly, and gives no privacy at all. What is drawn beside noise comes from streams that a source
keys `apart` from itself (`streams.py`).

How far a draw is from a true normal, in standard deviations: nothing lies beyond sqrt(128 ln 2) = 9.42, where a normal
has 4.6e-21 of its mass; inside, with Box-Muller radius r, rounding moves a draw by at most 1.5e-15 (r + 1/r), 4e-15 in
the mean (measured: 1.6e-16). `grid.py` says what that costs.
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

_BLOCK = 16_384  # pairs drawn at a time: three arrays of 128 KiB fit a second-level cache

_process = object()  # another object in every forked child; a process number could come back in a grandchild


def _enter_child() -> None:
    global _process
    _process = object()


os.register_at_fork(after_in_child=_enter_child)


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

    def laplace(self, shape: Sequence[int], scale: float) -> Float64:
        """Independent Laplace draws of mean 0 and scale b = `scale`, float64."""
        ...

    def apart(self, purpose: str) -> KeyStream:
        """A stream under a key of its own, another one at every call: all of it says nothing about this source."""
        ...


class KeyStream:
    """ChaCha20 key stream (RFC 8439) read as 64-bit words."""

    def __init__(self, key: bytes) -> None:
        self._rekey(key)

    def _rekey(self, key: bytes) -> None:
        # the key is used once, so counter and nonce may start at zero; 2^32 blocks are 256 GiB, far beyond one process
        self._stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """The next `count` words of the stream: every draw comes through here."""
        return np.frombuffer(self._stream.update(bytes(8 * count)), dtype="<u8")

    def uniform(self, shape: Sequence[int]) -> Float64:
        """Independent uniforms with 52 random bits, strictly inside (0, 1), float64."""
        # 52 bits and a half are exact in float64; with 53 the half is rounded away, and the largest draw becomes 1.0
        bits = (self.words(math.prod(shape)) >> np.uint64(12)).view(np.int64).astype(np.float64)
        return ((bits + 0.5) * 2.0**-52).reshape(tuple(shape))

    def normal(self, shape: Sequence[int], scale: float) -> Float64:
        """Independent N(0, scale^2) by Box and Muller (1958), float64. Raises ValueError for a negative scale."""
        if not (scale >= 0 and math.isfinite(scale)):
            raise ValueError("the noise scale must be a finite number >= 0")
        count = math.prod(shape)
        half = (count + 1) // 2
        drawn = np.empty((2, half))
        for start in range(0, half, _BLOCK):
            self._pairs(drawn[:, start : start + _BLOCK], scale)
        return drawn.reshape(-1)[:count].reshape(tuple(shape))

    def laplace(self, shape: Sequence[int], scale: float) -> Float64:
        """Independent Laplace draws, float64: a sign and -scale log(u). Raises ValueError for a negative scale.

        Nothing lies beyond 64 ln 2 = 44.4 scales, where a Laplace variable has 5.4e-20 of its mass.
        """
        if not (scale >= 0 and math.isfinite(scale)):
            raise ValueError("the noise scale must be a finite number >= 0")
        words = self.words(math.prod(shape))
        # as for normals: 63 bits, because small uniforms make the large draws; the last bit is the sign
        drawn = (words >> np.uint64(1)).view(np.int64).astype(np.float64)
        drawn += 0.5
        drawn *= 2.0**-63
        np.log(drawn, out=drawn)
        drawn *= np.where(words & np.uint64(1), scale, -scale)
        return drawn.reshape(tuple(shape))

    def _pairs(self, out: Float64, scale: float) -> None:
        """Fill `out` [2, P] with P Box-Muller pairs, in place: the temporaries of a block stay in the cache."""
        pairs = out.shape[1]
        words = self.words(2 * pairs)
        # 63 bits for the radius: small uniforms make the large radii, and a float64 keeps all bits of a small number
        radius = (words[:pairs] >> np.uint64(1)).view(np.int64).astype(np.float64)
        radius += 0.5
        radius *= 2.0**-63
        np.log(radius, out=radius)
        radius *= -2.0
        np.sqrt(radius, out=radius)
        radius *= scale
        angle = (words[pairs:] >> np.uint64(11)).view(np.int64) * (2.0 * math.pi * 2.0**-53)
        np.cos(angle, out=out[0])
        np.sin(angle, out=out[1])
        out *= radius


class SecureNoise(KeyStream):
    """The production source: ChaCha20 keyed with 256 bits from the operating system; cannot be seeded or copied.

    A forked child takes a new key at its first draw: parent and child never share noise.
    """

    test = False

    def __init__(self) -> None:
        super().__init__(os.urandom(32))
        self._process = _process

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """The next `count` words of the stream: every draw comes through here."""
        if self._process is not _process:
            self._rekey(os.urandom(32))
            self._process = _process
        return super().words(count)

    def apart(self, purpose: str) -> KeyStream:
        """A stream under a fresh key from the operating system; `purpose` does not matter."""
        return SecureNoise()


class TestNoise(KeyStream):
    """Reproducible noise for tests and demos; whoever knows the seed can remove it, so it protects nobody."""

    test = True
    __test__ = False  # not a test case, whatever pytest makes of the name

    def __init__(self, seed: int) -> None:
        warnings.warn("TestNoise is in use: reproducible noise, NO privacy protection", stacklevel=2)
        self._label, self._parted = f"sfumato test noise {seed}", 0
        super().__init__(hashlib.sha256(self._label.encode()).digest())

    def apart(self, purpose: str) -> KeyStream:
        """A stream keyed by a hash of the seed, `purpose` and how many streams there are already."""
        self._parted += 1
        return KeyStream(hashlib.sha256(f"{self._label}, {purpose} {self._parted}".encode()).digest())
