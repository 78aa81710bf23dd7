"""The last look at what leaves a site: arrays exactly as the plan says, and errors without their texts.

Nothing that is raised here quotes a value, or a name that the plan does not already contain: a name can be a patient's.
"""

from __future__ import annotations

import secrets
import traceback
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from sfumato_common import errors
from sfumato_common.errors import EgressRefused, SfumatoError
from sfumato_common.files import write_atomic
from sfumato_common.types import Arrays, Schema

FAILED = SfumatoError.wire_code
CODES = frozenset(
    kind.wire_code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SfumatoError)
)


def check_reply(arrays: Arrays, schema: Schema, *, reservation_present: bool, largest_bytes: int) -> None:
    """Raise EgressRefused unless `arrays` are exactly what `schema` declares, finite, small enough and paid for."""
    if reservation_present is not True:
        raise EgressRefused("a reply without a reservation in the privacy ledger may not leave")
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
        if not np.isfinite(value).all():
            raise EgressRefused(f"'{name}' is not finite; the stage diverged, lower its learning rate")
    if sum(value.nbytes for value in arrays.values()) > largest_bytes:
        raise EgressRefused("a reply is larger than any that a site may send")


def sanitise(error: BaseException) -> tuple[str, str]:
    """What may leave of an error: its class's code from a fixed list, and a random reference [16 hexadecimal digits].

    Pass the reference to `log_locally`; an instance's own attributes and its text are never looked at.
    """
    code = type(error).wire_code if isinstance(error, SfumatoError) else FAILED
    return (code if code in CODES else FAILED), secrets.token_hex(8)


def log_locally(folder: Path, reference: str, error: BaseException) -> None:
    """Keep the whole error under its reference in `folder`, readable by the site's own user alone."""
    text = "".join(traceback.format_exception(error))
    write_atomic(folder / "errors" / f"{reference}.txt", f"{datetime.now(UTC).isoformat()}\n{text}", mode=0o600)
