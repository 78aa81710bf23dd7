"""Requests and replies as Flower records: exactly one ConfigRecord and one ArrayRecord, nothing beside them.

`Array` payloads are .npy bytes read without pickle. Sizes are checked before anything is decoded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from sfumato_common.errors import VerificationError
from sfumato_common.records import ARRAYS_KEY, CONFIG_KEY, Reply, Request
from sfumato_common.types import AnyArray, Arrays

LARGEST_MESSAGE_BYTES = 512 * 1024 * 1024


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
    return ArrayRecord({name: Array(np.ascontiguousarray(value)) for name, value in arrays.items()})


def _decode(records: RecordDict) -> tuple[dict[str, Any], dict[str, AnyArray]]:
    if set(records) != {CONFIG_KEY, ARRAYS_KEY}:
        raise VerificationError("a message holds other records than one configuration and one set of arrays")
    config, arrays = records[CONFIG_KEY], records[ARRAYS_KEY]
    if not isinstance(config, ConfigRecord) or not isinstance(arrays, ArrayRecord):
        raise VerificationError("a message's records are of the wrong kind")
    if sum(len(array.data) for array in arrays.values()) > LARGEST_MESSAGE_BYTES:
        raise VerificationError("a message is larger than any plan allows")
    try:
        return dict(config), {name: array.numpy() for name, array in arrays.items()}
    except (ValueError, TypeError, EOFError):
        raise VerificationError("a message's arrays cannot be decoded") from None
