"""The one way out: every reply is made here: arrays as the plan says, noised as the ledger says, or a code.

Nothing that is raised here quotes a value, or a name that the plan does not already contain: a name can be a patient's.
"""

from __future__ import annotations

import secrets
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import numpy as np

from sfumato_common import errors
from sfumato_common.errors import EgressRefused, SfumatoError
from sfumato_common.files import if_room, write_atomic
from sfumato_common.mechanisms.sealed import Paid, Sealed
from sfumato_common.protocol.messages import PROTOCOL, Reply
from sfumato_common.types import Arrays, Schema

LARGEST_REPLY_BYTES = 256 * 1024 * 1024
LARGEST_PACKAGE_BYTES = 256 * 1024**2  # a shard: `study/shards.py` keeps far below
FAILED = SfumatoError.wire_code
CODES = frozenset(
    kind.wire_code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SfumatoError)
)


def noised_reply(sealed: Sealed[Arrays], schema: Schema, paid: Paid | None) -> Reply:
    """The reply that carries `sealed`. Raises EgressRefused unless it is declared, paid for and noised for this charge.

    `paid` is read back from the ledger after the work; None when the ledger has no such entry.
    """
    if type(paid) is not Paid:
        raise EgressRefused("a reply without a reservation in the privacy ledger may not leave")
    if type(sealed) is not Sealed:
        raise EgressRefused("a reply that no recorded mechanism made may not leave")
    sealed.check()
    paid.require(sealed.executed, sealed.binding)
    return plain_reply(sealed.result, schema)


def plain_reply(arrays: Arrays, schema: Schema) -> Reply:
    """A reply with exactly the arrays of `schema`: also for one that was sent before and is sent again.

    Raises EgressRefused for another name, count, dtype, shape or size, for values that are not finite, and for anything
    in the padding.
    """
    if set(arrays) != set(schema):
        raise EgressRefused("a reply has other arrays than the plan declares")
    for name in sorted(schema):
        value = arrays[name]
        # subclasses (masked arrays, memory maps) carry more than their elements
        if type(value) is not np.ndarray:
            raise EgressRefused(f"'{name}' is not a plain array")
        if not schema[name].matches(value):
            raise EgressRefused(f"'{name}' has another dtype or shape than the plan declares")
        if value.dtype.kind not in "fiu":
            raise EgressRefused(f"'{name}' does not hold numbers")
        if not schema[name].sound(value):
            raise EgressRefused(f"'{name}' is not finite, or its padding is not empty; lower the stage's learning rate")
    if sum(value.nbytes for value in arrays.values()) > LARGEST_REPLY_BYTES:
        raise EgressRefused("a reply is larger than any that a site may send")
    return Reply(PROTOCOL, "ok", "", "", dict(arrays))


class Leave(Protocol):
    """Leave for one package to go; the ledger keeps it (`ledger.approvals`)."""

    def check(self, package: bytes, public_key: bytes) -> None:
        """Raise ReleaseRefused unless it is the site's own, for exactly these bytes."""
        ...


def deliver(package: bytes, leave: Leave, public_key: bytes, upload: Callable[[bytes], None]) -> Reply:
    """Upload an approved package through `upload` and report nothing but that it arrived.

    Raises ReleaseRefused when `leave` is for other bytes, or not signed by this site.
    """
    if not package or len(package) > LARGEST_PACKAGE_BYTES:
        raise EgressRefused("the package is empty, or larger than any that a site may send")
    leave.check(package, public_key)
    upload(package)
    return plain_reply({}, {})


def pending_reply() -> Reply:
    """That the site is still at work, and nothing else: ask again."""
    return Reply(PROTOCOL, "pending", "", "", {})


def review_reply() -> Reply:
    """That people of the site have the release before them, and nothing else: ask again."""
    return Reply(PROTOCOL, "review", "", "", {})


def missing_reply() -> Reply:
    """That the site lacks an array which the request held back, and nothing else: not which."""
    return Reply(PROTOCOL, "missing", "", "", {})


def refusal(error: BaseException, folder: Path) -> Reply:
    """What may leave of an error: its class's code from a fixed list, and a random reference to the site's own log.

    An instance's own attributes and its text are never looked at, except to keep them in `folder`. A site whose disk
    has no room for that still answers.
    """
    code, reference = sanitise(error)
    with if_room():
        log_locally(folder, reference, error)
    # by the code, not by the class: 'refused' beside 'failed' would say that it was about the data (DataError)
    return Reply(PROTOCOL, "failed" if code == FAILED else "refused", code, reference, {})


def sanitise(error: BaseException) -> tuple[str, str]:
    """The code of an error's class, from a fixed list, and a random reference [16 hexadecimal digits]."""
    code = type(error).wire_code if isinstance(error, SfumatoError) else FAILED
    return (code if code in CODES else FAILED), secrets.token_hex(8)


def log_locally(folder: Path, reference: str, error: BaseException) -> None:
    """Keep the whole error under its reference in `folder`, readable by the site's own user alone."""
    text = "".join(traceback.format_exception(error))
    write_atomic(folder / "errors" / f"{reference}.txt", f"{datetime.now(UTC).isoformat()}\n{text}", mode=0o600)
