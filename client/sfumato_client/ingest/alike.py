"""Patient identifiers that may be one, or none: what typing, spreadsheets and exports make of them.

Nothing here decides. It says which identifiers a person has to look at, because two that are one patient would protect
nobody: removing that patient would remove half.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import Literal, TypeVar

K = TypeVar("K", bound=Hashable)
IdKind = Literal["", "0", "1", "anybody", "excel"]
ID_KINDS: tuple[IdKind, ...] = ("", "0", "1", "anybody", "excel")

# what programs write where there is nothing
_NOTHING = {"nan", "null", "none", "na", "n/a", "#n/a", "nil", "nat", "<na>", "-", "--", "?"}
# what people and de-identifiers write where they do not know, or do not say
_ANYBODY = {
    "anonymous", "anonymized", "anonymised", "anonym", "anon", "unknown", "unbekannt", "inconnu", "patient", "test",
    "noid", "noname", "missing", "default", "dummy", "removed", "redacted", "deidentified", "xxx", "xxxx", "tbd",
}  # fmt: skip
_EXCEL = re.compile(r"^\d([.,]\d+)?e\+?\d+$", re.IGNORECASE)
_INVISIBLE = {"Cf", "Cc", "Zs", "Zl", "Zp"}
_POINT_ZERO = re.compile(r"\.0+$")


def plain_id(identifier: str) -> str:
    """An identifier without what is not seen or does not count: form (NFKC), case, blanks, '^', '.0', leading zeros."""
    text = unicodedata.normalize("NFKC", identifier).casefold()
    text = "".join(sign for sign in text if unicodedata.category(sign) not in _INVISIBLE and sign != "^")
    return _POINT_ZERO.sub("", text).lstrip("0") or "0"


def says_no_id(identifier: str) -> bool:
    """Whether it is a program's word for nothing."""
    return identifier.strip().casefold() in _NOTHING


def is_placeholder(identifier: str) -> bool:
    """Whether it may stand for many people: ANONYMOUS, 0, or a number that Excel has rounded."""
    plain = "".join(sign for sign in plain_id(identifier) if sign.isalnum())
    return plain in _ANYBODY or plain in ("", "0") or lost_digits(identifier)


def id_kind(identifier: str) -> IdKind:
    """What can be seen of an identifier alone, for `placeholders` of a set of which nobody keeps the identifiers."""
    if identifier in ("0", "1"):
        return "0" if identifier == "0" else "1"
    if lost_digits(identifier):
        return "excel"
    return "anybody" if is_placeholder(identifier) else ""


def placeholders(kinds: Mapping[str, IdKind]) -> set[str]:
    """Those of a set's identifiers, given with their kind, that may stand for many people.

    0 is none where patients are counted from 0.
    """
    nobody = {"anybody", "excel", *(() if "1" in kinds.values() else ("0",))}
    return {name for name, kind in kinds.items() if kind in nobody}


def lost_digits(identifier: str) -> bool:
    """Whether Excel has turned a long number into few digits: several patients may have become one."""
    return bool(_EXCEL.match(identifier.strip()))


def groups_by(pairs: Iterable[tuple[K, str]]) -> list[list[str]]:
    """Identifiers that share a key, where more than one does: each group sorted, groups in the order of their first."""
    first, more = dict[K, str](), dict[K, set[str]]()
    for key, identifier in pairs:
        if first.setdefault(key, identifier) != identifier:
            more.setdefault(key, {first[key]}).add(identifier)
    return sorted(map(sorted, more.values()))


class Unions:
    """Sets of identifiers that are one patient (union-find); each is called by its first in order.

    Those of `before` come first: a patient is called as in the store before.
    """

    def __init__(self, before: Collection[str] = ()) -> None:
        self._above: dict[str, str] = {}
        self._before = frozenset(before)

    def join(self, group: Iterable[str]) -> None:
        """All of `group` are one."""
        first, *others = sorted({self.of(each) for each in group}, key=lambda name: (name not in self._before, name))
        for other in others:
            self._above[other] = first

    def of(self, identifier: str) -> str:
        """What the patient of `identifier` is called."""
        while identifier in self._above:
            identifier = self._above[identifier]
        return identifier
