"""Arrays of images in npz archives, read without pickle; whatever is wrong with one is one clear error."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from sfumato_common.errors import DataError
from sfumato_common.types import AnyArray

_ARRAY = "images"
_ENCRYPTED = 0x1


def read_archive(folder: Path, name: str) -> AnyArray:
    """The array `images` of NAME.npz in `folder`: whole numbers, [N, H, W] or [N, H, W, 3].

    Raises DataError for a name that is a path, and for a file that is missing, damaged or holds something else.
    """
    if not name or Path(name).name != name:
        raise DataError("the index names a set that is not a plain file name; correct the column 'set'")
    path = folder / f"{name.removesuffix('.npz')}.npz"
    try:
        with zipfile.ZipFile(path) as archive:
            images = _array(archive, path)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"'{path.name}' is not there; it belongs beside the index") from None
    except zipfile.BadZipFile:
        raise DataError(f"'{path.name}' {_not_a_zip(path)}; write it by numpy.savez(images=...)") from None
    except NotImplementedError:
        raise DataError(
            f"'{path.name}' is compressed in a way that numpy cannot read; pack it by numpy.savez"
        ) from None
    except Exception:  # zlib, struct, tokens of a header: whatever damage makes of them
        raise DataError(f"'{path.name}' is damaged: its array '{_ARRAY}' cannot be read; copy it again") from None
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    colour = images.ndim == 4 and images.shape[3] == 3
    if images.dtype.kind not in "ui" or not (images.ndim == 3 or colour):
        raise DataError(f"'{path.name}': 'images' must be uint8 or uint16, [N, H, W] or [N, H, W, 3]")
    return images.astype(images.dtype.newbyteorder("="), copy=False)


def _array(archive: zipfile.ZipFile, path: Path) -> AnyArray:
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if _ARRAY not in members:
        names = ", ".join(sorted(members)[:8]) or "nothing"
        raise DataError(f"'{path.name}' has no array '{_ARRAY}' (it has: {names}); name it so")
    info = members[_ARRAY]
    if info.flag_bits & _ENCRYPTED:
        raise DataError(f"'{path.name}' is protected by a password; unpack it and write it by numpy.savez")
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
        if dtype.hasobject:
            raise DataError(
                f"'{path.name}': 'images' holds Python objects; write one array of numbers, uint8 or uint16"
            )
        if int(np.prod(shape, dtype=object)) * dtype.itemsize > info.file_size:
            raise DataError(f"'{path.name}' is damaged: its header claims more than the file holds; copy it again")
    with archive.open(info) as stream:
        return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))


def _not_a_zip(path: Path) -> str:
    with path.open("rb") as file:
        is_npy = file.read(6) == b"\x93NUMPY"
    return "is a single array (.npy), not an archive" if is_npy else "is not an npz archive, or is damaged or cut off"
