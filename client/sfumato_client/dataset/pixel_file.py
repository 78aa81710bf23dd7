"""The store's pixels: one .npy file [N, S, S(, 3)], streamed, whose number of images is known only at the end."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from sfumato_common.types import AnyArray


def write_pixels(path: Path, images: Iterable[AnyArray], shape: tuple[int, ...]) -> dict[str, Any]:
    """Stream images of `shape` to a new file; its dtype and shape, for `store.json`."""
    dtype: npt.DTypeLike | None = None
    count = 0
    with path.open("wb") as stream:
        os.fchmod(stream.fileno(), 0o600)
        for pixels in images:
            if dtype is None:
                dtype = pixels.dtype
                _npy_header(stream, np.dtype(dtype), (0, *shape))
            assert (pixels.shape, pixels.dtype) == (shape, dtype), "a reader gave an image in another form"
            stream.write(np.ascontiguousarray(pixels).tobytes())
            count += 1
        stream.seek(0)
        _npy_header(stream, np.dtype(dtype or np.uint8), (count, *shape))
        stream.flush()
        os.fsync(stream.fileno())
    return {"dtype": str(np.dtype(dtype or np.uint8)), "shape": [count, *shape]}


def keep_rows(path: Path, rows: Sequence[int]) -> dict[str, Any]:
    """Leave only `rows` of the file at `path`; its dtype and shape."""
    whole = np.load(path, mmap_mode="r", allow_pickle=False)
    less = path.with_suffix(".less")
    facts = write_pixels(less, (whole[row] for row in rows), whole.shape[1:])
    less.replace(path)
    return {**facts, "dtype": str(whole.dtype)}


def _npy_header(stream: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """NPY 1.0 header; numpy pads it so that the first axis may grow to 21 digits without moving the data."""
    np.lib.format.write_array_header_1_0(
        stream, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )
