"""What a message between coordinator and site may say: two frozen records, their plain form, and strict reading of it.

A message is one set of named arrays (`ARRAYS_KEY`) and one flat configuration (`CONFIG_KEY`) of strings and integers
with exactly the fields below. There is no field for a metric, a count, a loss or a text, so none can leave by one.
An array that a site has already travels as its digest (`Request.held`).
Flower's own records are made from this in `flower.py`; nothing here imports it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

import numpy as np

from sfumato_common.errors import VerificationError
from sfumato_common.protocol.answers import read_answers
from sfumato_common.types import Arrays

PROTOCOL = 3
CONFIG_KEY = "sfumato"
ARRAYS_KEY = "arrays"
PACK_KEY = "pack"
LARGEST_ROUND = 1000
# on a node's requests, where its site's policy shows progress: `STEP/STEPS` of the round that it works on
PROGRESS_HEADER = b"sfumato-progress"

RequestKind = Literal[
    "hello", "stage", "make", "send", "utility", "sum-keys", "sum-shares", "sum-values", "sum-consent", "sum-unmask"
]
Status = Literal["ok", "pending", "review", "missing", "refused", "failed"]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_STAGE = re.compile(r"[a-z][a-z0-9-]{0,31}")
_CODE = re.compile(r"[a-z-]{1,32}")
_REFERENCE = re.compile(r"[0-9a-f]{0,16}")
_ARRAY_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")


@dataclass(frozen=True)
class Request:
    """Coordinator to site: what to do under which plan.

    'make' asks the site to make its release, 'send' to send what of it is ready. `stage` names a stage for kind
    'stage', the chosen model for a release that leaves one to choice, and is '' otherwise. Only a stage has rounds: the
    other kinds say 0, and 'hello' and 'send' bring no arrays. The steps of a secure sum name a stage or the utility
    figure, and as round the attempt at it ('sum-keys', 'sum-shares') or the phase (`summed.py`). `answered` says which
    answers of this site the coordinator holds (`answers.py`).

    `held` names arrays that do not come because the site has them, with the digest of each (`pack.array_digest`). In
    the configuration it is text: 'NAME DIGEST' of each, in the order of names, joined by spaces.
    """

    protocol: int
    plan_hash: str
    kind: RequestKind
    stage: str
    round: int
    arrays: Arrays
    answered: str = ""
    held: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_protocol(self.protocol)
        _require(_matches(_DIGEST, self.plan_hash), "a request's plan hash is malformed")
        _require(_one_of(self.kind, RequestKind), "a request is of a kind that this version does not know")
        named = _matches(_STAGE, self.stage)
        counted = self.kind == "stage" or self.kind.startswith("sum-")
        named = named if counted else self.stage == "" or (named and self.kind == "make")
        _require(named, "a request's stage is malformed or does not fit its kind")
        largest = LARGEST_ROUND if counted else 0
        _require(_is_int(self.round) and 0 <= self.round <= largest, "a request's round is out of range for its kind")
        read_answers(self.answered)
        _check_arrays(self.arrays)
        for name, digest in self.held.items():
            _require(_matches(_ARRAY_NAME, name), "a request holds back an array with a malformed name")
            _require(_matches(_DIGEST, digest), "a request names an array by a malformed digest")
        _require(not set(self.held) & set(self.arrays), "a request brings an array that it also holds back")
        bare = self.kind not in ("hello", "send") or not (self.arrays or self.held)
        _require(bare, f"a request of kind '{self.kind}' brings arrays")

    def to_config(self) -> dict[str, str | int]:
        """The plain fields, without the arrays."""
        held = " ".join(f"{name} {digest}" for name, digest in sorted(self.held.items()))
        return {**_to_config(self), "held": held}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], arrays: Arrays) -> Request:
        """Inverse of `to_config`. Raises VerificationError for unknown or missing fields and for bad values."""
        values = _exactly(cls, config)
        return cls(**{**values, "held": _read_held(values["held"])}, arrays=arrays)


@dataclass(frozen=True)
class Reply:
    """Site to coordinator: arrays when 'ok'; otherwise a code and the reference of an entry in the site's own log.

    'pending' has none of them, and says to ask again; so does 'review', which says that people of the site have the
    release before them, from sites whose policy tells it. 'missing' has none either: the site lacks an array that the
    request held back, did nothing, and wants the request whole.
    """

    protocol: int
    status: Status
    code: str
    reference: str
    arrays: Arrays

    def __post_init__(self) -> None:
        _check_protocol(self.protocol)
        _require(_one_of(self.status, Status), "a reply's status is unknown")
        if self.status in ("ok", "pending", "review", "missing"):
            _require(self.code == "" and self.reference == "", f"a reply that is '{self.status}' carries a code")
            _require(self.status == "ok" or not self.arrays, f"a reply that is '{self.status}' carries arrays")
        else:
            _require(_matches(_CODE, self.code), "a reply's code is malformed")
            _require(_matches(_REFERENCE, self.reference), "a reply's reference is malformed")
            _require(not self.arrays, "a reply that is not 'ok' carries arrays")
        _check_arrays(self.arrays)

    def to_config(self) -> dict[str, str | int]:
        """The plain fields, without the arrays."""
        return _to_config(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], arrays: Arrays) -> Reply:
        """Inverse of `to_config`. Raises VerificationError for unknown or missing fields and for bad values."""
        return cls(**_exactly(cls, config), arrays=arrays)


def _to_config(message: Request | Reply) -> dict[str, str | int]:
    return {item.name: getattr(message, item.name) for item in fields(message) if item.name != "arrays"}


def _read_held(text: object) -> dict[str, str]:
    words = text.split(" ") if type(text) is str and text else []
    held = dict(zip(words[::2], words[1::2], strict=False))
    _require(type(text) is str and 2 * len(held) == len(words), "a request's list of held arrays is malformed")
    return held


def _exactly(kind: type[Request | Reply], config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as keyword arguments; the texts below quote nothing of what came in."""
    wanted = {item.name for item in fields(kind)} - {"arrays"}
    _require(set(config) == wanted, "a message has unknown or missing fields; update both sides to one version")
    return dict(config)


def _check_protocol(protocol: object) -> None:
    _require(
        _is_int(protocol) and protocol == PROTOCOL,
        f"a message speaks another protocol than {PROTOCOL}; update both sides to one version",
    )


def _check_arrays(arrays: object) -> None:
    if not isinstance(arrays, Mapping):
        raise VerificationError("a message's arrays are not a mapping")
    for name, value in arrays.items():
        _require(_matches(_ARRAY_NAME, name), "a message has an array with a malformed name")
        _require(isinstance(value, np.ndarray) and not value.dtype.hasobject, "a message's array is not plain")


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    # fullmatch: '$' would let a final newline through
    return type(value) is str and pattern.fullmatch(value) is not None


def _one_of(value: object, choices: Any) -> bool:
    return type(value) is str and value in get_args(choices)


def _is_int(value: object) -> bool:
    return type(value) is int  # True and False are ints to isinstance


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise VerificationError(message)
