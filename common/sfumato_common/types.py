"""Frozen records and names that every floor shares.

Tensor convention: images are [N, C, H, W], float32 in [-1, 1]; labels are [N], int64; class counts are called K.
On disk and in packages images are uint8 (or uint16), [N, H, W] grey or [N, H, W, 3] colour.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NewType

import numpy as np
import numpy.typing as npt

SiteName = NewType("SiteName", str)
PlanHash = NewType("PlanHash", str)

FloatArray = npt.NDArray[np.floating[Any]]
# as wide as the plan's `image.bits`
ByteImages = npt.NDArray[np.uint8 | np.uint16]
AnyArray = npt.NDArray[Any]
Arrays = Mapping[str, AnyArray]


@dataclass(frozen=True)
class ArraySpec:
    """Name-free description of one array that may leave or enter a site: dtype (numpy name) and exact shape.

    dtype 'bfloat16' means its bit patterns in a uint16 array. Elements from `filled` on are padding and must be zero.
    `by_component`: its first axis is that of the model's components, of which a site is sent its own alone.
    """

    dtype: str
    shape: tuple[int, ...]
    filled: int | None = None
    by_component: bool = False

    @property
    def elements(self) -> int:
        """How many elements the shape holds."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size of the plain elements."""
        return self.elements * np.dtype(self._stored).itemsize

    @property
    def _stored(self) -> str:
        return "uint16" if self.dtype == "bfloat16" else self.dtype

    def matches(self, array: AnyArray) -> bool:
        """True when dtype and shape are exactly as declared."""
        return str(array.dtype) == self._stored and tuple(array.shape) == self.shape

    def sound(self, array: AnyArray) -> bool:
        """True when a matching array holds finite numbers only, and nothing where padding belongs."""
        if self.filled is not None and array.ravel()[self.filled :].any():
            return False
        if self.dtype == "bfloat16":  # all ones in the exponent: infinite or not a number
            return not bool(((array & 0x7F80) == 0x7F80).any())
        return bool(np.isfinite(array).all())


Schema = Mapping[str, ArraySpec]
# the final arrays of the models that stages made, by the stage's kind
Released = Mapping[str, Arrays]


def image_shape(size: int, channels: int) -> tuple[int, ...]:
    """Shape of one image of integers: (S, S) grey, (S, S, 3) colour."""
    return (size, size) if channels == 1 else (size, size, channels)


def fingerprint(arrays: Arrays) -> str:
    """sha256 of names and contents, lower-case hexadecimal: the very same arrays have the very same one."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + b"\0")
        # an array's own memory, where it lies in that order
        digest.update(np.ascontiguousarray(arrays[name]).data if arrays[name].size else b"")
    return digest.hexdigest()


def pixel_dtype(bits: int) -> np.dtype[np.uint8 | np.uint16]:
    """The integer type of pixels of that many bits, 8 or 16."""
    assert bits in (8, 16), "images have 8 or 16 bits a value"
    return np.dtype(np.uint16 if bits == 16 else np.uint8)


def to_eight_bits(pixels: ByteImages) -> npt.NDArray[np.uint8]:
    """Pixels for a screen: uint16 values to the nearest of 256 grey levels; uint8 as they are."""
    return pixels if pixels.dtype == np.uint8 else np.rint(pixels / 257.0).astype(np.uint8)  # type: ignore[return-value]


def to_unit_range(images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Integer images [N, H, W] or [N, H, W, 3] (uint8 or uint16) -> float32 [N, C, H, W] in [-1, 1]."""
    top = float(np.iinfo(images.dtype).max)
    floats = images.astype(np.float32) * np.float32(2.0 / top) - np.float32(1.0)
    return floats[:, None] if floats.ndim == 3 else np.ascontiguousarray(floats.transpose(0, 3, 1, 2))


def values_of(records: AnyArray) -> npt.NDArray[np.float32]:
    """Integer images as `to_unit_range` gives them; float32 features [N, d] as they are."""
    return records if records.dtype == np.float32 else to_unit_range(records)


def to_bytes(images: npt.NDArray[np.floating[Any]], bits: int = 8) -> ByteImages:
    """Float images [N, C, H, W] in [-1, 1] -> uint8 or uint16 [N, H, W] (C = 1) or [N, H, W, 3], rounded, clamped."""
    top = (1 << bits) - 1
    scaled = np.clip(np.rint((images + 1.0) * (top / 2)), 0, top).astype(pixel_dtype(bits))
    return scaled[:, 0] if scaled.shape[1] == 1 else np.ascontiguousarray(scaled.transpose(0, 2, 3, 1))
