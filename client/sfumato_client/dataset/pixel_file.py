"""The store's pixels: one .npy file [N, S, S(, 3)] that grows, and whose header is written when N is known."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sfumato_common.study.terms import ImageForm
from sfumato_common.types import AnyArray, pixel_dtype

_HEADER = 128  # bytes of the header of an array of so few axes


class PixelFile:
    """A new file at `path` for images of `form`, or one that goes on after its first `count` images."""

    def __init__(self, path: Path, form: ImageForm, count: int = 0) -> None:
        self._shape, self._dtype, self._count = form.shape, np.dtype(pixel_dtype(form.bits)), count
        self._stream = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        _npy_header(self._stream, self._dtype, (0, *self._shape))
        assert self._stream.tell() == _HEADER
        place = _HEADER + count * _bytes(form)
        self._stream.truncate(place)
        self._stream.seek(place)

    @staticmethod
    def holds(path: Path, form: ImageForm, count: int) -> bool:
        """Whether the file at `path` is long enough for so many images."""
        return path.is_file() and path.stat().st_size >= _HEADER + count * _bytes(form)

    def append(self, pixels: AnyArray) -> None:
        """Write one more image."""
        assert (pixels.shape, pixels.dtype) == (self._shape, self._dtype), "a reader gave an image in another form"
        self._stream.write(np.ascontiguousarray(pixels).tobytes())
        self._count += 1

    def flush(self) -> None:
        """Hand what was written to the system, which keeps it when this process dies."""
        self._stream.flush()

    def sync(self) -> None:
        """Have it on the disk."""
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def close(self) -> dict[str, Any]:
        """Write the header and close; dtype and shape."""
        self._stream.seek(0)
        _npy_header(self._stream, self._dtype, (self._count, *self._shape))
        self.sync()
        self._stream.close()
        return {"dtype": str(self._dtype), "shape": [self._count, *self._shape]}


def keep_rows(path: Path, form: ImageForm, rows: Sequence[int]) -> dict[str, Any]:
    """Leave only `rows` of the file at `path`; dtype and shape."""
    whole = np.load(path, mmap_mode="r", allow_pickle=False)
    less = path.with_suffix(".less")
    kept = PixelFile(less, form)
    for row in rows:
        kept.append(whole[row])
    facts = kept.close()
    less.replace(path)
    return facts


def _bytes(form: ImageForm) -> int:
    return int(np.prod(form.shape)) * np.dtype(pixel_dtype(form.bits)).itemsize


def _npy_header(stream: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """NPY 1.0 header; numpy pads it so that the first axis may grow to 21 digits without moving the data."""
    np.lib.format.write_array_header_1_0(
        stream, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )
