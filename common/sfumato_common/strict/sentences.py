"""What pydantic found wrong with a setting, as a sentence that says what to write instead."""

from __future__ import annotations

import difflib
import re
import typing
import unicodedata
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel

from sfumato_common.strict.document import Place

# a name of a study, site or label: small letters, digits and hyphens, as folders and certificates take them
_NAME = re.compile(r"\^\[a-z\]\[a-z0-9-\]\{0,(\d+)\}\$")
_LETTERS = {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "æ": "ae", "ø": "oe", "å": "aa"}
_WANTED = {
    "int_type": "is no whole number; write one, as in 20",
    "float_type": "is no number; write one, as in 0.5 or 1e-5",
    "bool_type": "is neither true nor false; write one of them",
    "list_type": "is no list; write one, as in [a, b]",
    "dict_type": "has no keys; write 'key: value' below it",
    "model_type": "has no keys; write 'key: value' below it",
    "finite_number": "is no finite number; write one",
    "string_type": "is no word; write one",
    "path_type": "is no path; write one",
    "is_instance_of": "is no path; write one",
}
_LIMITS = {
    "greater_than": ("gt", "is too small; write more than {}"),
    "greater_than_equal": ("ge", "is too small; write {} or more"),
    "less_than": ("lt", "is too large; write less than {}"),
    "less_than_equal": ("le", "is too large; write {} or less"),
    "multiple_of": ("multiple_of", "is no multiple of {}; write one"),
    "too_short": ("min_length", "has too few entries; at least {} are needed"),
    "too_long": ("max_length", "has too many entries; at most {} are taken"),
    "string_too_short": ("min_length", "is too short; write {} letters or more"),
    "string_too_long": ("max_length", "is too long; write {} letters or fewer"),
}


def sentence(item: Any, place: Place, model: type[BaseModel], written: str | None) -> tuple[str, str | None]:
    """What is wrong in pydantic's `item`, and the value that it says it of, or None.

    `written` is how the file has it, where that is one word without quotes.
    """
    kind, given, context = item["type"], item["input"], item.get("ctx", {})
    where, shown = ".".join(str(part) for part in place), written if written is not None else _plain(given)
    if kind == "extra_forbidden":
        near = _near(str(place[-1]), sorted(_all_keys(model)))
        return f"unknown key '{where}'" + (f"; did you mean '{near}'?" if near else "; remove it"), None
    if kind == "missing":
        return f"missing key '{where}'; add it", None
    if kind == "union_tag_not_found":
        return f"missing key '{where}.{context['discriminator'].strip(chr(39))}'; add it", None
    if kind == "union_tag_invalid":
        return not_one_of(str(context["tag"]), re.findall("'([^']+)'", context["expected_tags"])), None
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'|(-?[0-9.]+|True|False|None)", context["expected"])
        return not_one_of(str(given), [word or other for word, other in known]), None
    if kind == "string_type" and isinstance(given, bool | int | float):
        meant = "true or false" if isinstance(given, bool) else "a number"
        return f"without quotes is {meant}, not a word; put it in quotes", shown
    if kind in ("int_type", "float_type") and isinstance(given, str):
        return _number(given) or _WANTED[kind], shown
    if kind == "string_pattern_mismatch" and (name := _NAME.fullmatch(context["pattern"])):
        return _name(str(given), int(name[1]) + 1), shown
    if kind in _LIMITS:
        key, said = _LIMITS[kind]
        return said.format(f"{context[key]:g}"), shown
    if kind == "value_error":  # a rule of our own is a sentence already
        return str(context["error"]), None
    return _WANTED.get(kind, item["msg"]), shown if kind in _WANTED else None


def settled(item: Any, value: Any) -> Place:
    """Where in `value` an error of pydantic lies: its location without the names of models and of unions' members."""
    place: list[str | int] = []
    at, parts = value, list(item["loc"])
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        entry = isinstance(at, list) and isinstance(part, int) and part < len(at)
        if entry or (isinstance(at, Mapping) and part in at):
            at = at[part]
        elif not (last and isinstance(at, Mapping) and item["type"] in ("missing", "extra_forbidden")):
            continue
        place.append(part)
    return tuple(place)


@cache
def hidden_keys(model: type[BaseModel]) -> frozenset[str]:
    """Keys of `model` whose values no message shows: fields with `repr=False`."""
    return frozenset(
        name for inner in all_models(model) for name, field in inner.model_fields.items() if not field.repr
    )


def _plain(given: Any) -> str | None:
    return str(given) if isinstance(given, str | int | float) and not isinstance(given, bool) else None


def _near(given: str, known: list[str]) -> str | None:
    folded = given.lower().replace("-", "_")
    matches = difflib.get_close_matches(folded, known, n=1, cutoff=0.5) or difflib.get_close_matches(given, known, n=1)
    return matches[0] if matches else None


def not_one_of(given: str, known: list[str]) -> str:
    """That there is no `given`, and the nearest of what there is, or all of it."""
    near = difflib.get_close_matches(given.lower(), known, n=1, cutoff=0.5)
    return f"there is no '{given[:40]}'; " + (f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}")


def _number(given: str) -> str | None:
    """How the number that somebody meant is written, where that is plain."""
    if re.fullmatch(r"[0-9]+,[0-9]+", given):
        return f"has a comma; write {given.replace(',', '.')}"
    if part := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?%", given):
        return f"is in percent; write {float(part[1]) / 100:g}"
    if re.fullmatch(r"[0-9][0-9_']*[0-9]", given) and not given.isdecimal():
        return f"has signs between its digits; write {re.sub('[^0-9]', '', given)}"
    if re.fullmatch(r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?", given):
        return "stands in quotes; write the number without them"
    return None


def _name(given: str, longest: int) -> str:
    """What a name may have, and the one nearest to what somebody wrote."""
    spelt = "".join(_LETTERS.get(sign, sign) for sign in given.lower())
    bare = unicodedata.normalize("NFKD", spelt).encode("ascii", "ignore").decode()
    name = re.sub(r"[^a-z0-9]+", "-", bare).lstrip("-0123456789")[:longest].strip("-")
    allowed = f"is no name here: a to z, 0 to 9 and '-', a letter first, {longest} signs at most"
    return f"{allowed}; write '{name}'" if name else f"{allowed}; write one"


def _all_keys(model: type[BaseModel]) -> set[str]:
    """All key names that occur anywhere in the model: an unknown key is often a right one in the wrong place."""
    return {name for inner in all_models(model) for name in inner.model_fields}


@cache
def all_models(model: type[BaseModel]) -> tuple[type[BaseModel], ...]:
    """`model` and every model below it, each once."""
    found: dict[type[BaseModel], None] = {}
    waiting = [model]
    while waiting:
        if (one := waiting.pop(0)) not in found:
            found[one] = None
            waiting += [inner for field in one.model_fields.values() for inner in models_in(field.annotation)]
    return tuple(found)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a type names, such as the members of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in models_in(part)]
