"""Requests and replies as Flower records: exactly one ConfigRecord and one ArrayRecord, nothing beside them.

`Array` payloads are .npy bytes (version 1.0 of NumPy's format) of plain numbers. Sizes are checked before anything is
decoded, and what is decoded is a view of the payload: a header cannot make a reader allocate what it only claims.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from sfumato_common.errors import VerificationError
from sfumato_common.protocol.messages import ARRAYS_KEY, CONFIG_KEY, Reply, Request
from sfumato_common.types import AnyArray, Arrays

LARGEST_MESSAGE_BYTES = 512 * 1024 * 1024
# what a schema may name, in this machine's byte order: no structures, no objects, nothing to convert
_PLAIN = {np.dtype(kind) for kind in (np.float32, np.float64, np.uint8, np.uint16, np.int64)}


def encode(message: Request | Reply) -> RecordDict:
    """Records of a request or reply."""
    return RecordDict({CONFIG_KEY: ConfigRecord(dict(message.to_config())), ARRAYS_KEY: _array_record(message.arrays)})


def decode_request(records: RecordDict) -> Request:
    """Inverse of `encode` at the site. Raises VerificationError for anything unexpected."""
    config, arrays = _decode(records)
    return Request.from_config(config, arrays)


def decode_reply(records: RecordDict) -> Reply:
    """Inverse of `encode` at the coordinator. Raises VerificationError for anything unexpected."""
    config, arrays = _decode(records)
    return Reply.from_config(config, arrays)


def _array_record(arrays: Arrays) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(value, order="C")) for name, value in arrays.items()})


def _decode(records: RecordDict) -> tuple[dict[str, Any], dict[str, AnyArray]]:
    if set(records) != {CONFIG_KEY, ARRAYS_KEY}:
        raise VerificationError("a message holds other records than one configuration and one set of arrays")
    config, arrays = records[CONFIG_KEY], records[ARRAYS_KEY]
    if not isinstance(config, ConfigRecord) or not isinstance(arrays, ArrayRecord):
        raise VerificationError("a message's records are of the wrong kind")
    if sum(len(array.data) for array in arrays.values()) > LARGEST_MESSAGE_BYTES:
        raise VerificationError("a message is larger than any plan allows")
    try:
        return dict(config), {name: _plain(array) for name, array in arrays.items()}
    except Exception:  # NumPy parses a header as Python text: a crafted one ends in any kind of error
        raise VerificationError("a message's arrays cannot be decoded") from None


def _plain(array: Array) -> AnyArray:
    """A read-only view of a payload that is exactly what its header and its description say. Raises ValueError."""
    stream = io.BytesIO(array.data)
    known = array.stype == "numpy.ndarray" and np.lib.format.read_magic(stream) == (1, 0)
    if not known:
        raise ValueError("not a plain .npy payload")
    shape, column_major, dtype = np.lib.format.read_array_header_1_0(stream)
    start = stream.tell()
    exact = all(type(length) is int and length >= 0 for length in shape) and not column_major and dtype in _PLAIN
    if not exact or (str(dtype), shape) != (array.dtype, tuple(array.shape)):
        raise ValueError("a form that no schema has, or another one than announced")
    # a payload of another size than its header says does not fit the shape: also a ValueError
    return np.frombuffer(array.data, dtype, offset=start).reshape(shape)
