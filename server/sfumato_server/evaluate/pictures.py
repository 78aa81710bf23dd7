"""Pixels of a researcher's own files in the form of a published set: PNG, JPEG, TIFF, and rows of npz archives.

DICOM is not read here: hospitals' files are ingested by `sfumato-site`, which knows what their headers mean.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from sfumato_common.archives import read_archive
from sfumato_common.errors import DataError
from sfumato_common.imaging import depth_of, in_form
from sfumato_common.study.terms import ImageForm
from sfumato_common.types import AnyArray, ByteImages

_FORMATS = ("PNG", "JPEG", "TIFF")
_GREY, _DEEP = {"1", "L", "LA"}, {"I;16", "I;16B", "I;16L", "I"}
_LARGEST = 2**16 - 1


class Pictures:
    """Reads images named by an index in `folder`, into `form`; an archive is loaded once."""

    def __init__(self, folder: Path, form: ImageForm) -> None:
        self._folder, self._form = folder, form
        self._archives: dict[str, AnyArray] = {}

    def of_file(self, name: str) -> ByteImages:
        """The picture of a file. Raises DataError for what cannot be read."""
        path = self._folder / name
        try:
            with Image.open(path, formats=_FORMATS) as opened:
                samples = _samples(ImageOps.exif_transpose(opened))
        except FileNotFoundError:
            raise DataError(
                f"'{name}' is not there; files stand where the index says, from its own folder on"
            ) from None
        except DataError:
            raise
        except Exception:  # Pillow reports damage as OSError, SyntaxError, ValueError, struct.error or zlib.error
            raise DataError(f"'{name}' is no PNG, JPEG or TIFF that can be read; convert it") from None
        return self._shown(samples)

    def of_row(self, archive: str, row: str) -> ByteImages:
        """Row `row` of ARCHIVE.npz. Raises DataError for what cannot be read."""
        name = archive.removesuffix(".npz")
        if name not in self._archives:
            self._archives[name] = read_archive(self._folder, name)
        images = self._archives[name]
        whole = row.removesuffix(".0")
        if not whole.isdecimal() or int(whole) >= len(images):
            raise DataError(f"row '{row}' is not in '{name}.npz', which has rows 0 to {len(images) - 1}")
        return self._shown(_unsigned(images[int(whole)]))

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
