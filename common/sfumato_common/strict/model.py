"""Strict models (pydantic v2): unknown keys are errors, nothing is converted, and all faults of a file come at once."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.strict.document import Document, Fault, Place, read_document
from sfumato_common.strict.rules import Faults
from sfumato_common.strict.scalars import TRUTHS
from sfumato_common.strict.sentences import hidden_keys, not_one_of, sentence, settled

# more of them help nobody
_MOST = 40
_SHOWN = 40


class Strict(BaseModel):
    """Base of all configuration: frozen, unknown keys refused, no silent conversion of strings to numbers.

    A field with `repr=False` may hold what is a patient's; no message shows its value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


Model = TypeVar("Model", bound=Strict)


def read_signed(
    data: bytes, kind: type[Model], encode: Callable[[Model], bytes], malformed: str, altered: str
) -> Model:
    """The record in bytes that were signed or hashed: JSON in the one form that `encode` gives it.

    Raises VerificationError: `malformed` where it is no such record, `altered` where it is one in other bytes.
    """
    try:
        found = kind.model_validate(json.loads(data))
        written = encode(found)
    except (ValidationError, ValueError, RecursionError):
        raise VerificationError(malformed) from None
    if written != data:
        raise VerificationError(altered)
    return found


def load_yaml(path: Path, model: type[Model]) -> Model:
    """Read `path` into `model`. Raises ConfigError with line, key and remedy of every fault; never a traceback."""
    return parse_document(read_document(path), model)


def load_kind(path: Path, models: Mapping[str, type[Model]]) -> Model:
    """Read `path` into the model that its `kind` names. Raises ConfigError as `load_yaml`."""
    file = read_document(path)
    kind = file.value.get("kind") if isinstance(file.value, dict) else None
    if isinstance(file.value, dict) and not (isinstance(kind, str) and kind in models):
        spot = file.spots.get(("kind",))
        said = not_one_of(str(kind), list(models)) if spot else f"missing key; there are {', '.join(models)}"
        raise ConfigError(f"{file.name}: " + (f"line {spot.line}: " if spot else "") + f"'kind': {said}")
    return parse_document(file, models.get(str(kind), next(iter(models.values()))))


def parse(value: Any, model: type[Model], name: str) -> Model:
    """Validate plain data against `model`; `name` is what error lines call the source."""
    return parse_document(Document(name, value), model)


def parse_document(document: Document, model: type[Model]) -> Model:
    """Validate a file's data against `model`. Raises ConfigError with every fault of it."""
    if not isinstance(document.value, dict):
        raise ConfigError(f"{document.name}: expected a mapping of keys to values at the top level")
    found: Model | None = None
    wrong: list[Fault] = []
    try:
        found = model.model_validate(document.value)
    except ValidationError as error:
        found, wrong = _truths(document, model, error)
    faults = [*document.faults, *_beside(document, wrong)]
    if found is not None and not faults:
        return found
    raise ConfigError(_told(document.name, faults, hidden_keys(model)))


def _truths(document: Document, model: type[Model], error: ValidationError) -> tuple[Model | None, list[Fault]]:
    """The model with `yes` and `no` taken for true and false where nothing else can stand, or what is wrong."""
    errors = error.errors()
    meant = {
        place: TRUTHS[spot.written]
        for item in errors
        if item["type"] == "bool_type"
        and (spot := document.spots.get(place := settled(item, document.value)))
        and spot.written in TRUTHS
    }
    if not meant:
        return None, _faults(document, model, errors)
    value = copy.deepcopy(document.value)
    for (*above, last), truth in meant.items():
        at = value
        for part in above:
            at = at[part]
        at[last] = truth
    try:
        return model.model_validate(value), []
    except ValidationError as again:
        return None, _faults(document, model, again.errors())


def _faults(document: Document, model: type[Model], errors: list[Any]) -> list[Fault]:
    placed = [(item, settled(item, document.value)) for item in errors]
    return [
        Fault(_line(document, place), place, said, value)
        for item, place in placed
        if not _meant_otherwise(item, place, [other for _, other in placed])
        for said, value in _sentences(item, place, model, document)
    ]


def _meant_otherwise(item: Any, place: Place, places: list[Place]) -> bool:
    """Whether a word would do here, too, but keys were written, and what is wrong lies among them."""
    below = any(len(other) > len(place) and other[: len(place)] == place for other in places)
    return item["type"] == "literal_error" and isinstance(item["input"], dict) and below


def _sentences(item: Any, place: Place, model: type[Model], document: Document) -> list[tuple[str, str | None]]:
    cause = item.get("ctx", {}).get("error")
    if isinstance(cause, Faults):
        return [(said, None) for said in cause.said]
    spot = document.spots.get(place)
    return [sentence(item, place, model, spot.written if spot else None)]


def _line(document: Document, place: Place) -> int | None:
    """The line of the value at `place`, or of what it would stand in; None for the whole file and for plain data."""
    while place:
        if place in document.spots:
            return document.spots[place].line
        place = place[:-1]
    return None


def _beside(document: Document, wrong: list[Fault]) -> list[Fault]:
    """Faults but those of values that could not be read, which are told already."""
    unread = {fault.place for fault in document.faults}
    return [fault for fault in wrong if not any(fault.place[:end] in unread for end in range(1, len(fault.place) + 1))]


def _told(name: str, faults: list[Fault], hidden: frozenset[str]) -> str:
    """The message: one line where one thing is wrong, else a line each, in the file's order."""
    told: dict[str, int] = {}
    for fault in faults:
        where = ".".join(str(part) for part in fault.place)
        shown = fault.value is not None and not hidden & set(fault.place)
        value = f"'{_short(fault.value or '')}' " if shown else ""
        # sentences about a key name it themselves, and one about the whole file stands under none
        said = (
            fault.said
            if fault.said.startswith(("unknown key", "missing key", "key '", "a key "))
            else (f"'{where}': {value}{fault.said}" if where else fault.said)
        )
        told.setdefault(f"line {fault.line}: {said}" if fault.line else said, fault.line or sys.maxsize)
    lines = sorted(told, key=lambda line: told[line])
    if len(lines) == 1:
        return f"{name}: {lines[0]}"
    more = [f"and {len(lines) - _MOST} more"] if len(lines) > _MOST else []
    return f"{name}: {len(lines)} faults" + "".join(f"\n  {line}" for line in [*lines[:_MOST], *more])


def _short(value: str) -> str:
    line = " ".join(value.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 3]}..."
