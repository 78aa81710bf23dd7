"""The store's pixels: one file that grows image by image, each encrypted on its own, and the array that opens them.

A head (a mark and the file's id), then images of one length: nonce, ciphertext, tag. An image is opened
when it is asked for, into memory alone; nothing of it is ever written in the clear.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sfumato_client.dataset.encryption import ALTERED, FileCipher, file_name
from sfumato_common.crypto.pieces import ID_BYTES, OVERHEAD, new_id
from sfumato_common.errors import DataError
from sfumato_common.study.terms import ImageForm
from sfumato_common.types import AnyArray, pixel_dtype

PIXELS = "pixels"
_MARK = b"SFUPIX3\n"
_HEAD = len(_MARK) + ID_BYTES
_SOME = 1024
Rows = int | slice | npt.NDArray[Any] | Sequence[int]


@dataclass(frozen=True)
class PixelFacts:
    """A whole file: `shape` [N, S, S(, 3)] and `dtype` of its images, and its id."""

    shape: tuple[int, ...]
    dtype: str
    file_id: bytes


class PixelFile:
    """A new file in `folder` for images of `form`, or one that goes on after its first `count` images.

    It is named by its id, so that an old one and the one that takes its place can lie in one folder.
    """

    def __init__(self, folder: Path, form: ImageForm, store_key: bytes, going_on: tuple[bytes, int] | None = None):
        self._shape, self._dtype = form.shape, np.dtype(pixel_dtype(form.bits))
        self.file_id, self._count = going_on or (new_id(), 0)
        self._cipher = FileCipher(store_key, PIXELS, self.file_id)
        path = folder / file_name(PIXELS, self.file_id)
        self._stream = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        if not going_on:
            self._stream.truncate(0)
            self._stream.write(_MARK + self.file_id)
        else:
            self._stream.truncate(_HEAD + self._count * _bytes(form))
            self._stream.seek(0, os.SEEK_END)

    @staticmethod
    def holds(folder: Path, form: ImageForm, file_id: bytes, count: int) -> bool:
        """Whether the file of that id in `folder` is long enough for so many images."""
        path = folder / file_name(PIXELS, file_id)
        try:
            return _read_id(path) == file_id and path.stat().st_size >= _HEAD + count * _bytes(form)
        except (OSError, DataError):
            return False

    def append(self, pixels: AnyArray) -> None:
        """Write one more image."""
        assert (pixels.shape, pixels.dtype) == (self._shape, self._dtype), "a reader gave an image in another form"
        self._stream.write(self._cipher.encrypt(self._count, np.ascontiguousarray(pixels).tobytes()))
        self._count += 1

    def flush(self) -> None:
        """Hand what was written to the system, which keeps it when this process dies."""
        self._stream.flush()

    def sync(self) -> None:
        """Have it on the disk."""
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def close(self) -> PixelFacts:
        """Close the file."""
        self.sync()
        self._stream.close()
        return PixelFacts((self._count, *self._shape), str(self._dtype), self.file_id)


class EncryptedPixels:
    """The images of a file as an array [N, S, S(, 3)] that is read, never written; each is opened when it is taken.

    Raises DataError where the file in `folder` is not the one that `facts` say, and when an image is taken that was
    altered, or stands in another's place.
    """

    def __init__(self, folder: Path, facts: PixelFacts, store_key: bytes) -> None:
        self.shape, self.dtype = facts.shape, np.dtype(facts.dtype)
        self._cipher = FileCipher(store_key, PIXELS, facts.file_id)
        self._size = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        path = folder / file_name(PIXELS, facts.file_id)
        try:
            whole = _HEAD + len(self) * (self._size + OVERHEAD)
            fits = _read_id(path) == facts.file_id and path.stat().st_size == whole
            with path.open("rb") as stream:
                self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if fits else None
        except OSError:
            self._map = None
        if self._map is None:
            raise DataError(ALTERED)
        self._whole = memoryview(self._map)

    def __len__(self) -> int:
        return self.shape[0]

    def forget(self) -> None:
        """Let go of the pages that were read: who reads all images in turn would hold the whole file in the end."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def __getitem__(self, rows: Rows) -> AnyArray:
        """One image [S, S(, 3)] by its number, or [m, S, S(, 3)] by numbers, a mask or a slice; in memory, a copy."""
        if isinstance(rows, int | np.integer):
            return np.asarray(self._take([int(rows)])[0])
        if isinstance(rows, slice):
            return self._take(range(*rows.indices(len(self))))
        numbers = np.asarray(rows)
        return self._take((np.flatnonzero(numbers) if numbers.dtype == np.bool_ else numbers).tolist())

    def __array__(self, dtype: np.dtype[Any] | None = None, copy: bool | None = None) -> AnyArray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def _take(self, numbers: Sequence[int]) -> AnyArray:
        images = np.empty((len(numbers), *self.shape[1:]), dtype=self.dtype)
        if not len(numbers):
            return images
        count = self.shape[0]
        for number in numbers:
            if not -count <= number < count:
                raise IndexError("no such image in this store")
        places = [number % count for number in numbers]
        self._cipher.decrypt_all(self._whole, places, _HEAD, images.reshape(-1).view(np.uint8).data, self._size)
        return images


def kept_rows(folder: Path, form: ImageForm, rows: Iterable[int], facts: PixelFacts, store_key: bytes) -> PixelFacts:
    """A new file in `folder`, under an id and a key of its own, with only `rows` of the one that `facts` say."""
    whole, kept = EncryptedPixels(folder, facts, store_key), PixelFile(folder, form, store_key)
    for row in rows:
        kept.append(whole[int(row)])
        if not row % _SOME:
            whole.forget()
    return kept.close()


def _read_id(path: Path) -> bytes:
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    if len(head) < _HEAD or not head.startswith(_MARK):
        raise DataError(ALTERED)
    return head[len(_MARK) :]


def _bytes(form: ImageForm) -> int:
    return int(np.prod(form.shape)) * np.dtype(pixel_dtype(form.bits)).itemsize + OVERHEAD
