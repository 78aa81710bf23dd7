"""Results bound to what ran to make them and to the charge that pays for it: the only thing that may leave.

A seal lives and dies with its process, forks apart; what stays of it is the result's sha256, which the ledger keeps.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np

from sfumato_common.accounting.events import Event, Mechanism, event_to_json, normal_form, same_mechanisms
from sfumato_common.errors import EgressRefused
from sfumato_common.files import canonical_json
from sfumato_common.types import AnyArray

Parts = Mapping[str, AnyArray | bytes]


class ProcessKey:
    """A random key that lives and dies with its process; a fork has another, and takes no tag of its parent's."""

    def __init__(self) -> None:
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._key = secrets.token_bytes(32)

    def tag(self, stated: bytes) -> bytes:
        """HMAC-SHA-256 of what is stated."""
        return hmac.digest(self._key, stated, "sha256")


# what was sealed cannot be stored and altered, or made by anything but a recorder
_KEY = ProcessKey()


class Sealable(Protocol):
    """A result that is more than arrays, such as a set of images with what is claimed of it."""

    def parts(self) -> Parts:
        """Everything that its digest covers, by name."""
        ...


Result = TypeVar("Result", bound="bytes | Parts | Sealable")


def digest_of(result: bytes | Parts | Sealable) -> str:
    """Lower-case hexadecimal sha256 of a result: of the very bytes, or of named parts in the order of their names.

    A part's bytes follow a line of canonical JSON: [name, dtype, shape] of an array, [name, "bytes", length] of bytes.
    Raises EgressRefused for anything else.
    """
    if isinstance(result, bytes):
        return hashlib.sha256(result).hexdigest()
    parts = result if isinstance(result, Mapping) else result.parts() if hasattr(result, "parts") else None
    if parts is None or not all(isinstance(value, bytes | np.ndarray) for value in parts.values()):
        raise EgressRefused("only arrays and bytes can be sealed; nothing was sent")
    found = hashlib.sha256()
    for name in sorted(parts):
        value = parts[name]
        if isinstance(value, bytes):
            found.update(canonical_json([name, "bytes", len(value)]) + b"\n" + value)
        else:
            found.update(canonical_json([name, str(value.dtype), list(value.shape)]) + b"\n")
            found.update(np.ascontiguousarray(value).tobytes())
    return found.hexdigest()


@dataclass(frozen=True, eq=False)
class Sealed(Generic[Result]):
    """A result, what ran to make it in normal form, the charge it was made under (`binding`), and its sha256."""

    result: Result
    executed: tuple[Mechanism, ...]
    binding: str
    digest: str
    _seal: bytes = field(repr=False)

    @classmethod
    def of(cls, result: Result, executed: Sequence[Mechanism], binding: str) -> Sealed[Result]:
        """For recorders alone: they know what ran."""
        digest = digest_of(result)
        return cls(result, tuple(executed), binding, digest, _seal_of(executed, binding, digest))

    def check(self) -> None:
        """Raise EgressRefused unless a recorder sealed exactly this result with this count under this charge."""
        digest = digest_of(self.result)
        found = _seal_of(self.executed, self.binding, digest)
        if digest != self.digest or not hmac.compare_digest(self._seal, found):
            raise EgressRefused("this result is not what a recorded mechanism sealed; nothing was sent")


@dataclass(frozen=True)
class Paid:
    """What the ledger on disk holds for one charge: the events that were paid for, and what binds a result to them."""

    events: tuple[Event, ...]
    binding: str

    def require(self, executed: Iterable[Mechanism], binding: str) -> None:
        """Raise EgressRefused unless what was executed under `binding` is just what was paid for here."""
        ran = normal_form(executed)
        if binding != self.binding:
            raise EgressRefused("the result was noised under another reservation than this one's")
        if not ran and normal_form(self.events):
            raise EgressRefused("no mechanism ran for this charge: the result was not noised as the plan says")
        if not same_mechanisms(self.events, ran):
            raise EgressRefused("the mechanism that ran is not the one that the ledger was charged for")


def _seal_of(executed: Iterable[Mechanism], binding: str, digest: str) -> bytes:
    stated = canonical_json([binding, list(map(event_to_json, executed)), digest])
    return _KEY.tag(stated)
