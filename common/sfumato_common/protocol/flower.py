"""Requests and replies as Flower records: exactly one ConfigRecord and one ArrayRecord, nothing beside them.

The ArrayRecord holds one `Array`, the pack of all of a message's arrays: Flower stores and fetches each `Array` by
calls of its own. Sizes are checked before anything is decoded, and what is decoded is a view of the payload.
"""

from __future__ import annotations

from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.supercore.inflatable.inflatable_utils import pull_objects

from sfumato_common.errors import VerificationError
from sfumato_common.protocol.messages import ARRAYS_KEY, CONFIG_KEY, PACK_KEY, Reply, Request
from sfumato_common.protocol.pack import pack, unpack
from sfumato_common.types import AnyArray

LARGEST_MESSAGE_BYTES = 512 * 1024 * 1024
# how the payload describes itself to Flower, which does not look inside
_DTYPE, _STYPE = "uint8", "sfumato.pack"
# a message is there before its objects; Flower asks for one again after 1 s: most of an exchange without work
_ASK_AGAIN, _ASK_AGAIN_SECONDS = "initial_backoff", 0.1


def fetch_sooner() -> None:
    """Make this process's Flower ask sooner again for an object that is not there yet; its doubling and limits stay.

    Raises VerificationError where this Flower has no such pause.
    """
    pauses = pull_objects.__kwdefaults__ or {}
    if _ASK_AGAIN not in pauses:
        raise VerificationError("this Flower fetches objects in another way; install the version that is pinned")
    pauses[_ASK_AGAIN] = _ASK_AGAIN_SECONDS


def encode(message: Request | Reply) -> RecordDict:
    """Records of a request or reply."""
    data = pack(message.arrays)
    arrays = ArrayRecord({PACK_KEY: Array(_DTYPE, (len(data),), _STYPE, data)})
    return RecordDict({CONFIG_KEY: ConfigRecord(dict(message.to_config())), ARRAYS_KEY: arrays})


def decode_request(records: RecordDict) -> Request:
    """Inverse of `encode` at the site. Raises VerificationError for anything unexpected."""
    config, arrays = _decode(records)
    return Request.from_config(config, arrays)


def decode_reply(records: RecordDict) -> Reply:
    """Inverse of `encode` at the coordinator. Raises VerificationError for anything unexpected."""
    config, arrays = _decode(records)
    return Reply.from_config(config, arrays)


def _decode(records: RecordDict) -> tuple[dict[str, Any], dict[str, AnyArray]]:
    if set(records) != {CONFIG_KEY, ARRAYS_KEY}:
        raise VerificationError("a message holds other records than one configuration and one set of arrays")
    config, arrays = records[CONFIG_KEY], records[ARRAYS_KEY]
    if not isinstance(config, ConfigRecord) or not isinstance(arrays, ArrayRecord):
        raise VerificationError("a message's records are of the wrong kind")
    if set(arrays) != {PACK_KEY}:
        raise VerificationError("a message's arrays do not come as one pack; update both sides to one version")
    whole = arrays[PACK_KEY]
    if len(whole.data) > LARGEST_MESSAGE_BYTES:
        raise VerificationError("a message is larger than any plan allows")
    if (whole.dtype, tuple(whole.shape), whole.stype) != (_DTYPE, (len(whole.data),), _STYPE):
        raise VerificationError("a message's arrays cannot be decoded: they are announced as something else")
    try:
        return dict(config), unpack(whole.data)
    except Exception:  # a crafted header ends in any kind of error
        raise VerificationError("a message's arrays cannot be decoded") from None
