"""DICOM elements as hospitals' systems write them: decimal commas, blanks, empty values, functional groups.

A value that cannot be read is refused by the element's own name and tag, in the words of the standard's dictionary
(PS3.6), which is what a hospital's vendor understands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from pydicom.datadict import dictionary_description, dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

from sfumato_common.dicom.unreadable import UnreadableError

# what was read in another way than the header says it; goes into the local report
Note = Callable[[str], None]

_TEXT_NUMBERS = {"DS", "IS"}
_BLANKS = " \0\t\r\n"
# what some systems write around and within numbers
_NOISE = {*_BLANKS, "\xa0", '"', "'"}
_GROUPED = re.compile(r"[+-]?\d{1,3}(,\d{3})+\.\d*|[+-]?\d{1,3}(\.\d{3})+,\d*")
_THOUSANDS_OR_NOT = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")


def tag_of(keyword: str) -> int:
    """The tag of a keyword of the dictionary."""
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return tag


def named(keyword: str) -> str:
    """`Window Width (0028,1051)`: how reasons call an element."""
    tag = tag_of(keyword)
    return f"{dictionary_description(tag)} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


def numbers(dataset: Dataset, keyword: str) -> list[float | None]:
    """The numbers of an element, None for one that is empty; a decimal comma is a point. Raises UnreadableError."""
    item = dataset.get_item(keyword)
    if item is None or item.value is None:
        return []
    value: Any = item.value
    if isinstance(value, bytes):  # not yet read by pydicom, which refuses what is written otherwise
        if (item.VR or dictionary_VR(keyword)) not in _TEXT_NUMBERS:
            return _as_list(dataset, keyword)
        value = value.decode("latin-1").split("\\")
    return [_number(part, keyword) for part in (value if _is_list(value) else [value])]


def number(dataset: Dataset, keyword: str) -> float | None:
    """The first number of an element that is not empty, or None. Raises UnreadableError."""
    return next((value for value in numbers(dataset, keyword) if value is not None), None)


def integer(dataset: Dataset, keyword: str) -> int | None:
    """The first whole number of an element, or None where it is missing or empty. Raises UnreadableError."""
    value = number(dataset, keyword)
    if value is None:
        return None
    if value != int(value):
        raise UnreadableError(f"its {named(keyword)} is no whole number")
    return int(value)


def word(dataset: Dataset, keyword: str) -> str:
    """The first value of an element in capitals, without blanks around it; empty where it is missing."""
    try:
        value = dataset.get(keyword)
    except Exception:  # pydicom raises what its converters raise
        raise UnreadableError(f"its {named(keyword)} cannot be read") from None
    first = (value[0] if value else "") if _is_list(value) else value
    return "" if first is None else str(first).strip(_BLANKS).upper()


def plain(text: str) -> str:
    """The letters and digits of a word, in capitals: LINEAR_EXACT and `linear exact` are one."""
    return "".join(sign for sign in text.upper() if sign.isalnum())


def functional(dataset: Dataset, sequence: str, frame: int, keyword: str) -> Dataset:
    """Where a macro's elements stand: the frame's functional group, the shared one (PS3.3 C.7.6.16), or `dataset`.

    A group whose `keyword` is missing or empty says nothing, and the next place counts.
    """
    own = _items(dataset, "PerFrameFunctionalGroupsSequence")
    groups = [*(own[frame : frame + 1]), *_items(dataset, "SharedFunctionalGroupsSequence")[:1]]
    found = (item for group in groups for item in _items(group, sequence)[:1])
    return next((item for item in found if number(item, keyword) is not None), dataset)


def first_item(dataset: Dataset, sequence: str) -> Dataset | None:
    """The first item of a sequence, or None where it is missing or empty."""
    found = _items(dataset, sequence)
    return found[0] if found else None


def _items(dataset: Dataset, sequence: str) -> Sequence[Dataset]:
    value = dataset.get(sequence)
    return list(value) if value else []


def _as_list(dataset: Dataset, keyword: str) -> list[float | None]:
    try:
        value = dataset[keyword].value
    except Exception:  # a value of another length than its representation has
        raise UnreadableError(f"its {named(keyword)} cannot be read") from None
    if value is None:
        return []
    return [_number(part, keyword) for part in (value if _is_list(value) else [value])]


def _number(part: Any, keyword: str) -> float | None:
    text = "".join(sign for sign in str(part) if sign not in _NOISE) if part is not None else ""
    if not text:
        return None
    if _THOUSANDS_OR_NOT.fullmatch(text):
        raise UnreadableError(f"its {named(keyword)} has a comma that may mean thousands or decimals")
    if _GROUPED.fullmatch(text):  # the last sign is the decimal one
        last = max(text.rfind("."), text.rfind(","))
        text = text[:last].replace(",", "").replace(".", "") + "." + text[last + 1 :]
    text = text.replace(",", ".")
    try:
        return float(text)
    except ValueError:
        raise UnreadableError(f"its {named(keyword)} is no number") from None


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
