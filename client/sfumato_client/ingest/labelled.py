"""Labels that a hospital has in its files: an element of the header, or a code of a structured report (PS3.3 C.17.3).

What stands there is a word like a table's, and means what `map` of the source says. Neither is ever shown in a reason.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.datadict import keyword_dict, keyword_for_tag, tag_for_keyword
from pydicom.multival import MultiValue
from pydicom.tag import Tag

from sfumato_client.ingest.folders import folder_of, opened
from sfumato_client.ingest.terms import LabelFrom, ReportCode
from sfumato_common.dicom.elements import named
from sfumato_common.dicom.unreadable import UnreadableError
from sfumato_common.errors import ConfigError

# what says the label of a data set, in the form of a table's cell; raises UnreadableError
Labelled = Callable[[Dataset], str]
# study's UID: codes and meanings that its reports give a concept
Reports = dict[str, list[str]]

_TAG = re.compile(r"\(?([0-9A-Fa-f]{4}),\s*([0-9A-Fa-f]{4})\)?")
_DEEPEST = 32
_READ = ("SOPClassUID", "StudyInstanceUID", "ContentSequence")


def labels_of(source: LabelFrom, images: Path) -> Labelled:
    """What says the labels of data sets whose reports, if no folder is named, lie beside the `images`.

    Raises ConfigError for a tag that is none, DataError for a folder of reports that cannot be read.
    """
    if source.sr is not None:
        code = source.sr
        folder_of(code.folder or images).check()
        return lambda dataset: _of_reports(dataset, code, code.folder or images)
    assert source.tag is not None
    tag = _tag(source.tag)
    return lambda dataset: _of_element(dataset, tag)


def read_reports(folder: Path, code: ReportCode) -> Reports:
    """What the structured reports of a folder say of a concept; read once a process. Raises DataError."""
    return _reports(folder, code.code, code.scheme)


def _tag(said: str) -> int:
    """The tag of `0008,103E` or of a keyword."""
    parts = _TAG.fullmatch(said)
    if parts:
        return int(parts[1] + parts[2], 16)
    tag = tag_for_keyword(said)
    if tag is None:
        near = difflib.get_close_matches(said, list(keyword_dict), 1)
        hint = f"; is '{near[0]}' meant?" if near else ""
        raise ConfigError(f"'tag' under 'label_from' is neither like 0008,103E nor a keyword of DICOM: '{said}'{hint}")
    return int(tag)


def _of_element(dataset: Dataset, tag: int) -> str:
    keyword = keyword_for_tag(tag)
    what = named(keyword) if keyword else f"element ({tag >> 16:04X},{tag & 0xFFFF:04X})"
    try:
        value = dataset[Tag(tag)].value if Tag(tag) in dataset else None
    except Exception:  # pydicom raises what its converters raise
        raise UnreadableError(f"its {what}, which says the label, cannot be read") from None
    parts = list(value) if isinstance(value, MultiValue | list | tuple) else [value]
    cell = "|".join(str(part).strip(" \0\t\r\n") for part in parts if part is not None)
    if not cell.strip("|"):
        raise UnreadableError(f"it has no label: its {what} is empty")
    return cell


def _of_reports(dataset: Dataset, code: ReportCode, folder: Path) -> str:
    study = str(dataset.get("StudyInstanceUID") or "").strip()
    found = read_reports(folder, code).get(study, []) if study else []
    if not found:
        raise UnreadableError("it has no label: no structured report of its study has the code of 'label_from'")
    return "|".join(found)


@lru_cache(maxsize=1)
def _reports(folder: Path, code: str, scheme: str) -> Reports:
    found, place = defaultdict[str, list[str]](list), folder_of(folder)
    place.check()
    for name in place.names():
        try:
            with opened(place.find(name)) as file, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                report = dcmread(file, stop_before_pixels=True, specific_tags=list(_READ))
                study = str(report.get("StudyInstanceUID") or "").strip()
                said = [value for item in _items(report) if _is(item, code, scheme) for value in _values(item)]
            found[study] += said
        except Exception:  # no DICOM file, or a damaged one: its study has no report then  # noqa: S112
            continue
    return {study: list(dict.fromkeys(values)) for study, values in found.items() if study and values}


def _items(holder: Dataset, depth: int = 0) -> Iterator[Dataset]:
    for item in (holder.get("ContentSequence") or []) if depth < _DEEPEST else []:
        yield item
        yield from _items(item, depth + 1)


def _is(item: Dataset, code: str, scheme: str) -> bool:
    named_by = item.get("ConceptNameCodeSequence") or []
    return any((one.get("CodeValue"), one.get("CodingSchemeDesignator")) == (code, scheme) for one in named_by)


def _values(item: Dataset) -> Iterator[str]:
    """A coded value by meaning and code, a number, or words."""
    for value in item.get("ConceptCodeSequence") or []:
        yield from (str(value.get(name)).strip() for name in ("CodeMeaning", "CodeValue") if value.get(name))
    for value in item.get("MeasuredValueSequence") or []:
        if value.get("NumericValue") is not None:
            yield str(value.NumericValue).strip()
    if item.get("TextValue"):
        yield str(item.TextValue).strip()
