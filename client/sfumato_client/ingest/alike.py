"""Patient identifiers that may be one, or none: what typing, spreadsheets and exports make of them.

Nothing here decides. It says which identifiers a person has to look at, because two that are one patient would protect
nobody: removing that patient would remove half.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from typing import Literal, TypeVar

import numpy as np

V = TypeVar("V", bound=Hashable)
IdKind = Literal["", "0", "1", "anybody", "excel"]
ID_KINDS: tuple[IdKind, ...] = ("", "0", "1", "anybody", "excel")

# what programs write where there is nothing
_NOTHING = {"nan", "null", "none", "na", "n/a", "n.a", "nil", "nat", "undefined", "inf", "infinity", "n/k", "s/n"}
_NOTHING |= {"k.a", "n.b", "/n"}
# what programs write around it: <NA>, (null), \\N of databases, NaN.0
_AROUND, _AFTER = "'\"`()[]{}<>.,;:*/ ", re.compile(r"[.,]0+$")
# what spreadsheets write for a value that they could not make, in any language: #N/A, #NV, #REF!, #NAME?
_FAULT = re.compile(r"#n/?[a-z]|#\S*[!?]|#(div|ref|wert|value|bezug).*")
# what people and de-identifiers write where they do not know, or do not say
_ANYBODY = {
    "anonymous", "anonymized", "anonymised", "anonym", "anon", "unknown", "unbekannt", "inconnu", "patient",
    "test", "noid", "noname", "missing", "default", "dummy", "removed", "redacted", "deidentified", "tbd", "nn",
    "tba", "unk", "unkn", "unbek", "pat", "demo", "phantom", "ohne", "notapplicable", "keineangabe", "leer",
    "notavailable", "notknown", "notgiven", "anonyme", "anonymisiert", "anonimo", "anonimizado", "desconocido",
    "sconosciuto", "onbekend", "inconnue", "okänd", "ukjent", "ukendt", "nieznany", "неизвестно", "неизвестный",
    "аноним", "匿名", "不明", "未知", "익명",
}  # fmt: skip
# what may stand beside such a word
_BESIDE = {"patient", "id", "name", "subject", "person", "male", "female", "m", "f"}
_REPEATED = re.compile(r"([^\W\d])\1{2,}|(\d)\2{5,}|9{4,}")  # XXX, 999999
_MISSING = re.compile(r"-\d+([.,]0+)?")  # a code of statistics programs
# what spreadsheets make of 1-2, 2/1 and 0
_MONTHS = "jan|feb|mar|mär|mrz|apr|mai|may|jun|jul|aug|sep|okt|oct|nov|dez|dec|déc|fév"
_DATE = re.compile(rf"\d{{1,2}}[-. ]+({_MONTHS})[a-z]*|({_MONTHS})[a-z]*[-. ]+\d{{1,4}}|00:00:00|1900-01-00( .*)?")
_NO_DAY = re.compile(r"(\d{1,2}[-./]){2}(1899|1900)|1899-12-3[01]( .*)?")  # its first days
_NO_BIRTHDAY = {"", "0", "00000000", "18000101", "19000101", "18991230", "99991231"}
_EXCEL = re.compile(r"^\d([.,]\d+)?(e[+ ]?|\s*[x\u00d7*]\s*10\s*\^?)\d+$", re.IGNORECASE)
_INVISIBLE = {"Cf", "Cc", "Zs", "Zl", "Zp"}
_VARIANTS = {"\u034f", *map(chr, range(0xFE00, 0xFE10))}  # selectors of another shape of the letter before
_POINT_ZERO = re.compile(r"(?<=\d)[.,]0+$")
_THOUSANDS = re.compile(r"\d{1,3}([.,'\u2019]\d{3})+")
_DASHES = re.compile("[-_/\u2010-\u2015\u2212]+")
# signs that begin or end an identifier and are none of it, and commas that divide no number
_BEFORE, _BEHIND = "'\"`\u2018\u2019\u201c\u201d+#=()[]{}<>,;:*|\\", "'\"`\u2018\u2019\u201c\u201d()[]{}<>.,;:*|\\-_/"
_COMMA = re.compile(r"(?<!\d),|,(?!\d)")
# a sign between letters and digits, and zeros that begin a number
_JOINT = re.compile(r"(?<=[^\W\d])-(?=\d)|(?<=\d)-(?=[^\W\d])")
_PREFIXED = re.compile(r"[^\W\d]{1,10}[-.:#=]*(\d+)")
_ZEROS = re.compile(r"^0+(?=\w)|(?<!\d)0+(?=\d)")


def plain_id(identifier: str) -> str:
    """An identifier without what is not seen or does not count.

    That is its form (NFKC), case, blanks, '^', quotes and brackets around it, '.0', signs of thousands, the script of
    its digits, the kind of its dashes, one between letters and digits, and zeros that begin it or a number.
    """
    text = unicodedata.normalize("NFKC", _unspoilt(identifier)).casefold()
    text = "".join(map(_digit, (sign for sign in text if _is_seen(sign))))
    # the two letters i of Turkish; what NFKC leaves of the dotted one is a combining dot
    text = text.replace("\u0131", "i").replace("\u0307", "").lstrip(_BEFORE).rstrip(_BEHIND)
    text = _COMMA.sub("", _POINT_ZERO.sub("", text))
    if _THOUSANDS.fullmatch(text):
        return "".join(sign for sign in text if sign.isdigit())
    return _ZEROS.sub("", _JOINT.sub("", _DASHES.sub("-", text))) or "0"


def bare_number(identifier: str) -> str:
    """The number of an identifier that has letters before it, as `plain_id` would give it alone: of P001 1; else ''."""
    found = _PREFIXED.fullmatch(plain_id(identifier))
    return found[1] if found else ""


def _unspoilt(text: str) -> str:
    """UTF-8 that a program has read as Windows-1252, read again: the two letters for each one beyond ASCII are one."""
    try:
        return text if text.isascii() else text.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return text


def _is_seen(sign: str) -> bool:
    return unicodedata.category(sign) not in _INVISIBLE and sign != "^" and sign not in _VARIANTS


def _digit(sign: str) -> str:
    """A digit of any script as one of ours."""
    value = unicodedata.decimal(sign, None)
    return sign if value is None else str(value)


def says_nothing(identifier: str) -> bool:
    """Whether it is a program's word for nothing."""
    text = identifier.strip().casefold()
    slashed = text.replace("\\", "/")
    nothing = bool({slashed, _AFTER.sub("", slashed).strip(_AROUND)} & _NOTHING)
    return nothing or bool(_FAULT.fullmatch(text)) or not any(sign.isalnum() for sign in text)


def is_placeholder(identifier: str) -> bool:
    """Whether it may stand for many people: ANONYMOUS, 0, or a number that Excel has rounded."""
    text = unicodedata.normalize("NFKC", identifier).strip().casefold()
    plain = "".join(sign for sign in text if sign.isalnum())
    words = {word for word in re.split(r"[\W_]+", text) if word}
    spoilt = lost_digits(identifier) or any(form.fullmatch(text) for form in (_REPEATED, _MISSING, _DATE, _NO_DAY))
    spoilt = spoilt or bool(_REPEATED.fullmatch(plain))  # XXX-XX-XXXX
    named = plain in _ANYBODY or (bool(words & _ANYBODY) and words <= _ANYBODY | _BESIDE)
    return named or spoilt or not plain.strip("0")


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


def plain_person(name: str, birth: str) -> str:
    """A person's name and birth date without what systems write otherwise: case, carets, commas, the date's signs.

    Digits stay: by them alone people differ whom a study calls PHANTOM^0012. Empty where either is missing, or is no
    one's own.
    """
    first = name.split("=")[0]  # the same name in other letters follows (PS3.5 6.2.1.1)
    signs = "".join(sign for sign in unicodedata.normalize("NFKC", first).casefold() if sign.isalnum())
    day = "".join(sign for sign in birth if sign.isdigit())
    nobody = not signs or is_placeholder(first) or day in _NO_BIRTHDAY
    return "" if nobody else f"{signs} {day}"


def lost_digits(identifier: str) -> bool:
    """Whether Excel has turned a long number into few digits: several patients may have become one."""
    return bool(_EXCEL.match(identifier.strip()))


def groups_by(*passes: Callable[[], Iterable[tuple[Hashable, str]]]) -> list[list[str]]:
    """Identifiers that share a key, where more than one does: each group sorted, and the groups.

    Every pass gives pairs of key and identifier, the same whenever it is begun. Only keys that are shared, and hashes
    of all others, are in memory: 16 bytes a pair.
    """
    groups = dict[Hashable, set[str]]()
    for pairs in passes:
        for key, identifiers in shared(pairs).items():
            groups.setdefault(key, set()).update(identifiers)
    return sorted(map(sorted, groups.values()))


def prefixed(each: Callable[[], Iterable[tuple[str, str, str]]]) -> list[list[str]]:
    """Groups of identifiers of which one is a number, and the others are that number with letters before it.

    `each` gives what is plain of an identifier, the number after its letters or '', and the identifier.
    """
    found = shared(lambda: ((number or plain, (bool(number), name)) for plain, number, name in each()))
    groups = [[name for _, name in group] for group in found.values() if len({lettered for lettered, _ in group}) > 1]
    return sorted(map(sorted, groups))


def shared(pairs: Callable[[], Iterable[tuple[Hashable, V]]]) -> dict[Hashable, set[V]]:
    """The keys that stand beside more than one value, and those values; see `groups_by`."""
    hashes = (number for key, value in pairs() for number in (hash(key), hash((key, value))))
    flat = np.fromiter(hashes, np.int64).view([("key", np.int64), ("both", np.int64)])
    flat.sort()  # in its place
    same_key = flat["key"][1:] == flat["key"][:-1]
    likely = set(flat["key"][1:][same_key & (flat["both"][1:] != flat["both"][:-1])].tolist())
    del flat, same_key
    found: dict[Hashable, set[V]] = defaultdict(set)
    for key, value in pairs() if likely else ():
        if hash(key) in likely:
            found[key].add(value)
    return {key: values for key, values in found.items() if len(values) > 1}


class Unions:
    """Sets of identifiers that are one patient (union-find); each is called by its first in order.

    Those of `before` come first: a patient is called as in the store before.
    """

    def __init__(self, before: Collection[str] = ()) -> None:
        self._above: dict[str, str] = {}
        self._before = before

    def __bool__(self) -> bool:
        """Whether any are one."""
        return bool(self._above)

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
