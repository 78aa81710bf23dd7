"""Which DICOM objects are pictures of a patient for a study, and which a site has to allow by name in its source.

Modalities are those of PS3.3 C.7.3.1.1.1; what is never a picture goes by its SOP class (PS3.4 B.5).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal

from pydicom.dataset import Dataset
from pydicom.uid import UID

from sfumato_common.dicom.elements import Note, named, plain, word
from sfumato_common.dicom.unreadable import UnreadableError

# radiographs, photographs of eye, skin and specimen, and what was captured again from such
TAKEN = ("CR", "DX", "MG", "RG", "PX", "IO", "OP", "XC", "GM", "OT")
Marked = Literal["burned-in", "scanned", "for-processing"]
MARKED: tuple[Marked, ...] = ("burned-in", "scanned", "for-processing")
# words in the names of SOP classes that hold something about an image
_NO_PICTURES = ("Segmentation", "SR Storage", "Structured", "Encapsulated", "Presentation State", "Key Object", "RT ")
# words in the names of SOP classes that hold other images than those, and what modality they are of
_OTHER_IMAGES = {
    "CT Image": "CT",
    "MR Image": "MR",
    "Ultrasound": "US",
    "Positron": "PT",
    "PET Image": "PT",
    "Nuclear Medicine": "NM",
    "Angiographic": "XA",
    "Radiofluoroscopic": "RF",
    "Whole Slide": "SM",
}
# words in the names of SOP classes of radiographs, photographs and what was computed from one; a private class goes by
# its modality
_PICTURES = ("Radiography", "Digital", "Secondary Capture", "VL ", "Photography", "Breast ", "Parametric Map")
_RAW = "For Processing"
# what says that text is burned in, by any word but these
_NOT_BURNED_IN = {"", "NO", "N", "FALSE", "0"}
_DIRECTORY = "1.2.840.10008.1.3.10"  # a DICOMDIR, PS3.10


def check_object(
    dataset: Dataset, allowed: Collection[str], note: Note, remedy: str = "write 'allow: [{}]' in the source"
) -> None:
    """Raise UnreadableError for an object that is no picture, or that `allowed` (in capitals) would have to name.

    `remedy` is how whoever reads it allows what `{}` stands for.
    """

    def allow(what: str) -> str:
        return f"{remedy.format(what)} to take such images"

    said = UID(str(dataset.get("SOPClassUID") or ""))
    if any(part in said.name for part in _NO_PICTURES):
        raise UnreadableError(f"its {named('SOPClassUID')} is {said.name}: no picture of a patient")
    if said == _DIRECTORY or "DirectoryRecordSequence" in dataset:
        raise UnreadableError("a DICOMDIR: it lists files and is no picture")
    modality = word(dataset, "Modality")
    meant = next((name for part, name in _OTHER_IMAGES.items() if part in said.name), modality)
    if modality in TAKEN and meant == modality and said.name.endswith("Storage") and not _is_picture(said):
        raise UnreadableError(f"its {named('SOPClassUID')} is {said.name}: no radiograph or photograph")
    # a class of other images knows better than a header that says they are radiographs
    if meant != modality and not {meant, modality} & (set(allowed) - set(TAKEN)):
        what = f"its {named('SOPClassUID')} is {said.name}"
        raise UnreadableError(f"{what}, no radiograph or photograph; {allow(meant)}")
    if not modality:
        note(f"its {named('Modality')} is empty")
    elif modality not in TAKEN and modality not in allowed:
        shown = modality if modality.isalnum() and len(modality) <= 8 else "another"
        taken = "radiograph or photograph"
        raise UnreadableError(f"its {named('Modality')} is {shown}, no {taken}; {allow(shown)}")
    _check_marks(dataset, allowed, allow)


def _is_picture(said: UID) -> bool:
    return any(part in said.name for part in _PICTURES)


def _check_marks(dataset: Dataset, allowed: Collection[str], allow: Callable[[str], str]) -> None:
    marks: dict[Marked, tuple[str, str]] = {
        "burned-in": ("BurnedInAnnotation", "YES"),
        "scanned": ("ConversionType", "SD"),
        "for-processing": ("PresentationIntentType", "FOR PROCESSING"),
    }
    meaning: dict[Marked, str] = {
        "burned-in": "text of the patient may stand in the picture",
        "scanned": "a scanned document",
        "for-processing": "raw values that are not meant to be looked at",
    }
    raw: Marked = "for-processing"
    if _RAW in UID(str(dataset.get("SOPClassUID") or "")).name and raw.upper() not in allowed:
        raise UnreadableError(f"its {named('SOPClassUID')} is {_RAW}: {meaning[raw]}; {allow(raw)}")
    for mark, (keyword, value) in marks.items():
        found = word(dataset, keyword)
        says_so = found not in _NOT_BURNED_IN if mark == "burned-in" else plain(found) == plain(value)
        if says_so and mark.upper() not in allowed:
            raise UnreadableError(f"its {named(keyword)} is {value}: {meaning[mark]}; {allow(mark)}")
