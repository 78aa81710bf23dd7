"""JSON Schema (2020-12) of settings files, for editors: pydantic's, with the comments above keys as descriptions."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

from pydantic import BaseModel, TypeAdapter

from sfumato_common.strict.sentences import all_models, models_in

_COMMENT = re.compile(r"    # (.*)")
_FIELD = re.compile(r"    ([a-z_]+): ")
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(annotation: Any, title: str) -> dict[str, Any]:
    """Of a model, or of a union of them by `kind`; what is said of a key where it is defined describes it."""
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    schema = adapter.json_schema()
    for model in [inner for root in models_in(annotation) for inner in all_models(root)]:
        own = schema if schema.get("title") == model.__name__ else schema.get("$defs", {}).get(model.__name__)
        if own is not None:
            for name, said in _comments(model).items():
                own.get("properties", {}).get(name, {}).setdefault("description", said)
    return {"$schema": _DIALECT, **ecma(schema), "title": title}


def ecma(value: Any) -> Any:
    """Patterns as JSON Schema takes them (ECMA 262): `^` and `$` for Rust's `\\A` and `\\z`."""
    if isinstance(value, list):
        return [ecma(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        (_anchored(key) if key.startswith(r"\A") else key): _anchored(inner)
        if key == "pattern" and isinstance(inner, str)
        else ecma(inner)
        for key, inner in value.items()
    }


def _anchored(pattern: str) -> str:
    return re.sub(r"^\\A", "^", re.sub(r"\\z$", "$", pattern))


def schema_text(schema: dict[str, Any]) -> str:
    """A schema as it is printed."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _comments(model: type[BaseModel]) -> dict[str, str]:
    """The comment above each field of a model and of its bases; none where the sources are not at hand."""
    found: dict[str, str] = {}
    for one in reversed(model.__mro__):
        if not issubclass(one, BaseModel) or one is BaseModel:
            continue
        try:
            lines = inspect.getsource(one).splitlines()
        except (OSError, TypeError):
            continue
        above: list[str] = []
        for line in lines:
            if comment := _COMMENT.fullmatch(line):
                above.append(comment[1])
                continue
            if (field := _FIELD.match(line)) and above:
                found[field[1]] = " ".join(above)
            above = []
    return found
