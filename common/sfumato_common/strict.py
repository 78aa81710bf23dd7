"""Strict YAML loading: unknown keys are errors that name the nearest right key (pydantic v2 models underneath)."""

from __future__ import annotations

import datetime
import difflib
import json
import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from sfumato_common.errors import ConfigError, VerificationError


class Strict(BaseModel):
    """Base of all configuration: frozen, unknown keys refused, no silent conversion of strings to numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


_PATHS = "use single quotes, or / instead"
# what YAML's own words for a fault mean to who wrote the file
_FAULTS = (
    ("escape", f"a backslash in double quotes; {_PATHS}"),
    ("'\\t'", "a tab; indent with blanks"),
    ("merge", "'<<' is not taken: write the keys out"),
)
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


class _NoDuplicates(yaml.SafeLoader):
    """YAML loader that refuses a key given twice (plain YAML silently keeps the last)."""


def _mapping(loader: _NoDuplicates, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node)
        if not isinstance(key, str):
            raise ConfigError(f"line {key_node.start_mark.line + 1}: a key is not a plain word; put it in quotes")
        if key in seen:
            raise ConfigError(f"line {key_node.start_mark.line + 1}: key '{key}' is given twice; keep one")
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


def _whole_number(loader: _NoDuplicates, node: yaml.ScalarNode) -> int:
    """A number as a person reads it: YAML 1.1 takes 0100 as 64, and 12:30 as 750."""
    if ":" in node.value or re.fullmatch(r"[-+]?0[0-9_]+", node.value):
        raise ConfigError(
            f"line {node.start_mark.line + 1}: '{node.value}' would be read as {loader.construct_yaml_int(node)}; "
            "write it without leading zeros and colons, or in quotes where it is a word"
        )
    return loader.construct_yaml_int(node)


def _text(loader: _NoDuplicates, node: yaml.ScalarNode) -> str:
    """A word; a Windows path in double quotes, whose backslashes have become other signs, is none."""
    if node.style == '"' and node.value[1:2] == ":" and any(ord(sign) < 32 for sign in node.value):
        raise ConfigError(f"line {node.start_mark.line + 1}: a path with backslashes stands in double quotes; {_PATHS}")
    return loader.construct_yaml_str(node)


_NoDuplicates.add_constructor("tag:yaml.org,2002:int", _whole_number)
_NoDuplicates.add_constructor("tag:yaml.org,2002:str", _text)
_NoDuplicates.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load_yaml(path: Path, model: type[Model]) -> Model:
    """Read `path` into `model`. Raises ConfigError with file, key and remedy; never a traceback."""
    return parse(read_yaml(path), model, path.name)


def read_yaml(path: Path) -> Any:
    """Plain data of a YAML file, to be parsed. Raises ConfigError with file, place and remedy."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path.name}: cannot be read ({error.strerror}); check the path") from None
    marked = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = raw.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path.name}: cannot be read: it is not UTF-8 at line {line}; save it as UTF-8") from None
    try:
        return yaml.load(text, Loader=_NoDuplicates)  # noqa: S506 - a SafeLoader subclass
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        said = str(getattr(error, "problem", None) or "")
        why = next((words for sign, words in _FAULTS if sign in said), "check indentation and quotes")
        raise ConfigError(f"{path.name}:{where} is not valid YAML; {why}") from None
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from None
    except (ValueError, RecursionError):
        # impossible dates, numbers of thousands of digits, endless nesting
        raise ConfigError(f"{path.name}: holds a value that cannot be read; write plain numbers and words") from None


def parse(value: Any, model: type[Model], name: str) -> Model:
    """Validate plain data against `model`; `name` is what error lines call the source."""
    if not isinstance(value, dict):
        raise ConfigError(f"{name}: expected a mapping of keys to values at the top level")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise ConfigError(f"{name}: " + "; ".join(_explain(item, model) for item in error.errors()[:4])) from None


def _explain(item: Any, model: type[BaseModel]) -> str:
    # pydantic adds the chosen union member's tag ("gan") after a list index: the user never wrote it
    loc = item["loc"]
    location = [part for at, part in enumerate(loc) if not (at and isinstance(loc[at - 1], int) and at < len(loc) - 1)]
    where = ".".join(str(part) for part in location)
    if item["type"] == "extra_forbidden":
        unknown = str(location[-1])
        near = difflib.get_close_matches(unknown, sorted(_all_keys(model)), n=1, cutoff=0.5)
        return f"unknown key '{where}'" + (f"; did you mean '{near[0]}'?" if near else "; remove it")
    if item["type"] == "missing":
        return f"missing key '{where}'; add it"
    if item["type"] == "union_tag_invalid":
        return f"'{where}': " + _not_one_of(item["ctx"]["tag"], re.findall("'([^']+)'", item["ctx"]["expected_tags"]))
    if item["type"] == "string_type" and isinstance(item["input"], bool | int | float | datetime.date):
        kind = "true or false" if isinstance(item["input"], bool) else "a number or a date"
        return f"'{where}': without quotes this is {kind}, not a word; put it in quotes"
    # a rule of our own is a sentence already, and one about the whole file stands under no key
    said = str(item["ctx"]["error"]) if item["type"] == "value_error" else item["msg"]
    return f"'{where}': {said}" if where else said


def _not_one_of(given: str, known: list[str]) -> str:
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    return f"there is no '{given}'; " + (f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}")


def _all_keys(model: type[BaseModel], seen: set[type] | None = None) -> set[str]:
    """All key names that occur anywhere in the model: an unknown key is often a right one in the wrong place."""
    seen = seen if seen is not None else set()
    if model in seen:
        return set()
    seen.add(model)
    keys: set[str] = set()
    for name, field in model.model_fields.items():
        keys.add(name)
        for inner in _models_in(field.annotation):
            keys |= _all_keys(inner, seen)
    return keys


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]
