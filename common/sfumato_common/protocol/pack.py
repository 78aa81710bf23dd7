"""The arrays of a message as one run of bytes, in the layout of safetensors, and the digest that names one array.

What is read is a view of the bytes: a header cannot make a reader allocate what it only claims. The writer is the
safetensors library; its reader copies, and so is not used here. Nor is its writer for what is written to a disk and as
large as a model: `pieces` gives the same bytes without a copy.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from safetensors.numpy import save

from sfumato_common.types import AnyArray, Arrays

# what a schema may name, in this machine's byte order: no structures, no objects, nothing to convert
_PLAIN = {"F32": np.float32, "F64": np.float64, "U8": np.uint8, "U16": np.uint16, "I64": np.int64}
# all that the library has of numpy's, in the order in which arrays lie: wide ones first, so that each is aligned
_WRITTEN = {
    np.dtype(kind): name
    for kind, name in [
        *((np.uint64, "U64"), (np.int64, "I64"), (np.float64, "F64"), (np.float32, "F32"), (np.uint32, "U32")),
        *((np.int32, "I32"), (np.float16, "F16"), (np.uint16, "U16"), (np.int16, "I16"), (np.int8, "I8")),
        *((np.uint8, "U8"), (np.bool_, "BOOL")),
    ]
}
# far beyond what the names and shapes of any plan take
_LONGEST_HEADER_BYTES = 2**20
_LENGTH_BYTES = 8


def pack(arrays: Arrays) -> bytes:
    """All of `arrays`, with their names, dtypes and shapes."""
    return save({name: np.asarray(value, order="C") for name, value in arrays.items()})


def pieces(arrays: Arrays, metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """The bytes that the library would write of `arrays` and `metadata`, a header and then each array's own memory.

    The whole of a model of many sites, in memory once more, is what a coordinator may not have.
    """
    kinds = list(_WRITTEN)
    order = sorted(arrays, key=lambda name: (kinds.index(arrays[name].dtype), name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in order:
        value, first = arrays[name], end
        end += value.nbytes
        header[name] = {"dtype": _WRITTEN[value.dtype], "shape": value.shape, "data_offsets": [first, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)
    yield len(text).to_bytes(_LENGTH_BYTES, "little") + text
    for name in order:
        if arrays[name].size:
            # only what lies otherwise is copied
            yield np.asarray(arrays[name], order="C").data


def unpack(data: Any) -> dict[str, AnyArray]:
    """Inverse of `pack`: read-only views of `data`, any buffer that is not written to meanwhile.

    Raises ValueError, and whatever reading a crafted JSON text ends in, unless every byte belongs to one plain array.
    """
    view = memoryview(data)
    length = int.from_bytes(view[:_LENGTH_BYTES], "little")
    start = _LENGTH_BYTES + length
    if length > _LONGEST_HEADER_BYTES or start > len(view):
        raise ValueError("not a pack")
    header = json.loads(bytes(view[_LENGTH_BYTES:start]), object_pairs_hook=_without_doubles)
    arrays, end = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape = np.dtype(_PLAIN[entry["dtype"]]), entry["shape"]
        first, last = entry["data_offsets"]
        lengths = [first, last, *shape]
        if set(entry) != {"dtype", "shape", "data_offsets"} or not all(type(n) is int and n >= 0 for n in lengths):
            raise ValueError("a form that no schema has")
        if first != end or last - first != math.prod(shape) * dtype.itemsize:
            raise ValueError("an array that is not where, or not as long as, its header says")
        end = last
        arrays[name] = np.frombuffer(view[start + first : start + last].toreadonly(), dtype).reshape(shape)
    if start + end != len(view):
        raise ValueError("bytes that belong to no array")
    return arrays


def own_name(name: str) -> str:
    """The name of an array by itself: in a release it is sent as part of a model, as 'MODEL:NAME'."""
    return name.rpartition(":")[2]


def array_digest(name: str, value: AnyArray) -> str:
    """sha256 of one array's own name, dtype, shape and contents, lower-case hexadecimal."""
    digest = hashlib.sha256(f"{own_name(name)}\0{value.dtype.str}\0{tuple(value.shape)}\0".encode())
    digest.update(np.ascontiguousarray(value).data if value.size else b"")
    return digest.hexdigest()


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("two entries of one name")
    return found
