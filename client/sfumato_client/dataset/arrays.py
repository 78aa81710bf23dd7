"""Plain arrays as one encrypted file, an npz inside, that is written and read in pieces: its bytes are never together.

An array may be given as a `Column`, whose rows come one by one: only the whole file knows all of them.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from sfumato_client.dataset.encryption import ALTERED, EncryptedReader, EncryptedWriter
from sfumato_common.errors import DataError
from sfumato_common.types import AnyArray

_ROWS = 512


@dataclass(frozen=True)
class Column:
    """An array [`count`, *`shape`] of `dtype` whose rows `rows` gives, each a number or the row's bytes."""

    count: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows: Callable[[], Iterable[bytes]]


def write_arrays(folder: Path, kind: str, arrays: Mapping[str, AnyArray | Column], key: bytes) -> str:
    """Write arrays as one encrypted file; its id."""
    with EncryptedWriter(folder, kind, key) as stream, zipfile.ZipFile(cast(Any, stream), "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                _write(cast(BinaryIO, member), array)
    return stream.file_id.hex()


def read_arrays(folder: Path, kind: str, file_id: str, key: bytes) -> dict[str, AnyArray]:
    """The arrays of such a file. Raises DataError."""
    stream = EncryptedReader(folder, kind, bytes.fromhex(file_id), key)
    try:
        with stream, np.load(cast(Any, io.BufferedReader(stream)), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile):
        raise DataError(ALTERED) from None


def smallest(numbers: AnyArray) -> AnyArray:
    """Numbers that are not negative, in the narrowest type that holds them."""
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))


def words_of(words: Iterable[str], count: int, longest: int = 16) -> AnyArray:
    """Short words [count], of which few are different, as bytes of the width of the longest; at most `longest`."""
    known, numbers = dict[str, int](), np.empty(count, np.uint32)
    for at, word in enumerate(words):
        numbers[at] = known.setdefault(word, len(known))
    return np.array([word.encode()[:longest] for word in known] or [b""], dtype=np.bytes_)[numbers]


def _write(stream: BinaryIO, array: AnyArray | Column) -> None:
    shape = (array.count, *array.shape) if isinstance(array, Column) else array.shape
    header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    if isinstance(array, Column):
        for piece in _pieces(array.rows()):
            stream.write(piece)
        return
    for first in range(0, len(array), _ROWS):
        stream.write(array[first : first + _ROWS].tobytes())


def _pieces(rows: Iterable[bytes]) -> Iterator[bytes]:
    waiting = list[bytes]()
    for row in rows:
        waiting.append(row)
        if len(waiting) == _ROWS:
            yield b"".join(waiting)
            waiting = []
    yield b"".join(waiting)


def tokens_of(tokens: AnyArray) -> AnyArray:
    """Tokens [n, 16], also of a store of before version 4."""
    if tokens.dtype.kind != "S":
        return tokens
    return np.frombuffer(b"".join(bytes.fromhex(name.decode()) for name in tokens.tolist()), np.uint8).reshape(-1, 16)


def hexes(tokens: AnyArray) -> list[str]:
    """Tokens [n, 16] as hexadecimal digits; stores of before version 4 have those digits themselves."""
    if tokens.dtype.kind == "S":
        return [name.decode() for name in tokens.tolist()]
    text, size = tokens.tobytes().hex(), 2 * tokens.shape[1]
    return [text[at : at + size] for at in range(0, len(text), size)]
