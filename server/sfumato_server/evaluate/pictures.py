"""Pixels of a researcher's own files in the form of a published set: PNG, JPEG, TIFF, DICOM, and rows of archives."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from sfumato_common.archives import read_archive
from sfumato_common.errors import DataError, SfumatoError
from sfumato_common.imaging import depth_of, in_form
from sfumato_common.study.terms import ImageForm
from sfumato_common.tables import Row
from sfumato_common.types import AnyArray, ByteImages
from sfumato_server.evaluate.films import HEAD, is_film, read_film

_FORMATS = ("PNG", "JPEG", "TIFF")
_GREY, _DEEP = {"1", "L", "LA"}, {"I;16", "I;16B", "I;16L", "I"}
_LARGEST = 2**16 - 1
_archive = lru_cache(maxsize=2)(read_archive)  # an index goes through one after another


class Pictures:
    """Reads images named by an index in `folder`, into `form`; `allowed` are DICOM objects that need a word for it."""

    def __init__(self, folder: Path, form: ImageForm, allowed: Collection[str] = ()) -> None:
        self._folder, self._form, self._allowed = folder, form, allowed

    def of(self, row: Row) -> tuple[ByteImages, Row]:
        """The picture that a row of an index names, and what the file says of its patient. Raises DataError."""
        if "file" not in row:
            return self.of_row(row["set"], row["row"]), {}
        name, frame = row["file"], row.get("frame", "")
        if is_film(self._head(name), name):
            return read_film(self._folder / name, frame, self._form, self._allowed)
        if frame:
            raise DataError(f"'{name}' is no DICOM file, and has no frames; leave its 'frame' empty")
        return self.of_file(name), {}

    def of_file(self, name: str) -> ByteImages:
        """The picture of a PNG, JPEG or TIFF. Raises DataError for what cannot be read."""
        try:
            with Image.open(self._folder / name, formats=_FORMATS) as opened:
                samples = _samples(ImageOps.exif_transpose(opened))
        except SfumatoError:
            raise
        except Exception:  # Pillow reports damage as OSError, SyntaxError, ValueError, struct.error or zlib.error
            raise DataError(f"'{name}' is no PNG, JPEG, TIFF or DICOM that can be read; convert it") from None
        return self._shown(samples)

    def of_row(self, archive: str, row: str) -> ByteImages:
        """Row `row` of ARCHIVE.npz. Raises DataError for what cannot be read."""
        name = archive.removesuffix(".npz")
        images = _archive(self._folder, name)
        whole = row.removesuffix(".0")
        if not whole.isdecimal() or int(whole) >= len(images):
            raise DataError(f"row '{row}' is not in '{name}.npz', which has rows 0 to {len(images) - 1}")
        return self._shown(_unsigned(images[int(whole)]))

    def _head(self, name: str) -> bytes:
        if not name:
            raise DataError("its row names no file")
        try:
            with (self._folder / name).open("rb") as file:
                return file.read(HEAD)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            raise DataError(
                f"'{name}' is not there; files stand where the index says, from its own folder or --folder on"
            ) from None
        except OSError as error:
            raise DataError(f"'{name}' cannot be read ({error.strerror}); check it and its rights") from None

    def _shown(self, samples: AnyArray) -> ByteImages:
        depth = 8 if samples.dtype.itemsize == 1 else depth_of(samples)
        display = samples.astype(np.float32) / np.float32(2**depth - 1)
        return in_form(display, self._form.size, self._form.channels, self._form.bits)


def _samples(picture: Image.Image) -> AnyArray:
    if picture.mode in _DEEP:
        return _unsigned(np.asarray(picture))
    return np.asarray(picture.convert("L" if picture.mode in _GREY else "RGB"))


def _unsigned(samples: AnyArray) -> AnyArray:
    """8 bits as they are, whole numbers of another width as 16. Raises DataError for values that 16 do not hold."""
    if samples.dtype == np.uint8:
        return samples
    if samples.min() < 0 or samples.max() > _LARGEST:
        raise DataError("an image holds values that are not 0 to 65535; write 8 or 16 bits")
    return samples.astype(np.uint16)
