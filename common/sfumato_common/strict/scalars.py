"""What an unquoted word of a settings file is: YAML 1.2's core schema (section 10.3.2), and no more.

So `no` and `12:30` are words, `1e-5` is a number, and a date is a word.
"""

from __future__ import annotations

import re

Scalar = str | int | float | bool | None

_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE, _FALSE = frozenset(("true", "True", "TRUE")), frozenset(("false", "False", "FALSE"))
_INT = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"([-+]?)\.(inf|Inf|INF)")
_NAN = frozenset((".nan", ".NaN", ".NAN"))
# some read 0100 as 64, others as 100, and as the identifier of something it is neither
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")
_LONGEST = 40
# what YAML 1.1 took for true and false: words here, and taken as such only where nothing else can stand
TRUTHS = {
    spelt: truth
    for words, truth in ((("yes", "on"), True), (("no", "off"), False))
    for word in words
    for spelt in (word, word.capitalize(), word.upper())
}


class Unclear(ValueError):
    """An unquoted word that could be meant in two ways; the text says which, and what to write instead."""


def resolve(text: str) -> Scalar:
    """The value of the unquoted word `text`. Raises Unclear."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _LEADING_ZERO.fullmatch(text):
        raise Unclear("has leading zeros; write a number without them, or put it in quotes where it is a word")
    if len(text) > _LONGEST and _INT.fullmatch(text):
        raise Unclear("is longer than any number here; put it in quotes where it is a word")
    if _INT.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if infinite := _INFINITE.fullmatch(text):
        return float(f"{infinite[1]}inf")
    return float("nan") if text in _NAN else text
