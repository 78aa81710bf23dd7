"""DICOM, an object an image: Secondary Capture Image Storage (PS3.3 A.8.1), written with highdicom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sfumato_common.errors import VerificationError
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, pixel_dtype
from sfumato_server.publish.formats.base import LARGEST_FOLDER, About, Format, Place, Shard, pixel_bytes
from sfumato_server.publish.formats.encoding import Pieces
from sfumato_server.publish.formats.headers import own, shared
from sfumato_server.publish.manifest import ImageEntry
from sfumato_server.publish.reading import PublishedImage

NEEDS = ("highdicom", "pydicom")
# who wrote the file, in the file's own group: the same whichever version of a library did
_IMPLEMENTATION_UID, _IMPLEMENTATION = "2.25.73671049358818116212064998792709684839", "SFUMATO_1"
_CLOCK = ("ContentTime", "TimeOfSecondaryCapture", "InstanceCreationDate", "InstanceCreationTime")
_MOVED = (*_CLOCK, "DateOfSecondaryCapture", "SeriesDate", "SeriesTime")
_UNSAID = "2.25.0"  # until the object's own elements are set
Facts = tuple[str, ...]


class Objects:
    """Makes the objects of a set, each from a template for all images of which the same is said.

    `template(entry)` makes one with highdicom, whatever UIDs and names it has; `kind` stands in the UIDs.
    """

    def __init__(self, about: About, kind: str, template: Callable[[ImageEntry], Any]) -> None:
        self._about, self._kind, self._template = about, kind, template
        self._made: dict[Facts, Pieces] = {}

    def make(self, entry: ImageEntry, number: int, pixels: bytes, **more: str) -> bytes:
        """The object, a whole file, whose first image is `entry`; `more` are elements by keyword."""
        facts, said = facts_of(entry), {**own(entry, number, self._about, self._kind), **more}
        if facts not in self._made:
            self._made[facts] = self._pieces(entry, said)
        values = {_tag(keyword): value.encode("ascii") for keyword, value in said.items()}
        return self._made[facts].file({**values, _tag("PixelData"): pixels})

    def _pieces(self, entry: ImageEntry, said: Iterable[str]) -> Pieces:
        from pydicom.datadict import dictionary_VR

        changing = {_tag(keyword): dictionary_VR(keyword) for keyword in said}
        changing[_tag("PixelData")] = "OW" if self._about.plan.image.bits == 16 else "OB"
        return Pieces(_finished(self._template(entry), entry, self._about), changing)


@cache
def _tag(keyword: str) -> int:
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(keyword)
    assert tag is not None, "keywords are ours"
    return tag


def facts_of(entry: ImageEntry) -> Facts:
    """All that is said of an image but its name and pixels."""
    return (entry.site, entry.label, entry.model, entry.method, entry.guarantee)


def unnamed(entry: ImageEntry) -> dict[str, Any]:
    """What highdicom wants to know of any object, in its own words."""
    return {
        "study_instance_uid": _UNSAID,
        "series_instance_uid": _UNSAID,
        "series_number": 1,
        "sop_instance_uid": _UNSAID,
        "instance_number": 1,
        "manufacturer": "Sfumato",
        "manufacturer_model_name": entry.model,
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
    }


def _finished(dataset: Any, entry: ImageEntry, about: About) -> Any:
    """The template with what is said of the set and its images, and nothing of this machine, its clock included.

    Contributing equipment: (109100, DCM, "Synthesizing Equipment") of CID 7005 (PS3.16).
    """
    from highdicom.base_content import ContributingEquipment
    from pydicom.sr.codedict import codes

    for keyword in _MOVED:
        if keyword in dataset:
            delattr(dataset, keyword)
    for keyword, value in shared(entry, about).items():
        setattr(dataset, keyword, value)
    # highdicom names itself and this machine here
    dataset.ContributingEquipmentSequence = [
        ContributingEquipment(
            "Sfumato",
            codes.DCM.SynthesizingEquipment,
            manufacturer_model_name=entry.model,
            contribution_description=f"Made by {entry.method} from model {entry.model}",
        )
    ]
    window(dataset, about.plan)
    dataset.file_meta.ImplementationClassUID = _IMPLEMENTATION_UID
    dataset.file_meta.ImplementationVersionName = _IMPLEMENTATION
    return dataset


def plain(pixels: AnyArray) -> bytes:
    """Pixels as an object holds them: row by row, little-endian; sides are multiples of 4, so never an odd number."""
    return np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()


def window(dataset: Any, plan: Plan) -> None:
    """The whole range of a grey image as its window (PS3.3 C.11.2.1.2.1): black is 0, white the largest value."""
    if plan.image.channels == 1:
        width = 2**plan.image.bits
        dataset.WindowCenter, dataset.WindowWidth = str(width // 2), str(width)


def read_exactly(path: Path, name: str, size: int) -> bytes:
    """A file of that size. Raises VerificationError when it is missing or of another size."""
    try:
        if path.stat().st_size != size:
            raise VerificationError(f"{name} is not of the size that its image has in this form")
        return path.read_bytes()
    except OSError:
        raise VerificationError(f"{name} is missing or cannot be read") from None


def compared(path: Path, name: str, made: bytes, plan: Plan, frames: int) -> AnyArray:
    """Frames [F, S, S(, 3)] of a file that is `made`, an object of black frames, but for its pixels.

    Nothing of the file is parsed: pixels are its last element, and every byte before them was made from the entry.
    """
    dtype, shape = pixel_dtype(plan.image.bits).newbyteorder("<"), (frames, *plan.image.shape)
    data = read_exactly(path, name, len(made))
    start = len(made) - frames * pixel_bytes(plan)
    if data[:start] != made[:start]:
        raise VerificationError(f"{name}: its header is not the one that is made from the signed entry and the plan")
    return np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def _objects(about: About) -> Objects:
    from highdicom.sc import SCImage

    form = about.plan.image
    black = np.zeros(form.shape, pixel_dtype(form.bits))

    def template(entry: ImageEntry) -> Any:
        return SCImage(
            pixel_array=black,
            photometric_interpretation="MONOCHROME2" if form.channels == 1 else "RGB",
            bits_allocated=form.bits,
            coordinate_system="PATIENT",
            patient_orientation=("L", "F"),
            **unnamed(entry),
        )

    return Objects(about, "image", template)


def _places(shard: Shard, about: About) -> Sequence[Place]:
    return [Place(f"dicom/{shard.number:05d}/{entry.name}.dcm") for entry in shard.entries]


def _write(folder: Path, shard: Shard, images: Iterable[PublishedImage], about: About) -> None:
    (folder / f"dicom/{shard.number:05d}").mkdir(parents=True)
    objects = _objects(about)
    for number, (place, image) in enumerate(zip(_places(shard, about), images, strict=True), shard.start + 1):
        (folder / place.file).write_bytes(objects.make(image.entry, number, plain(image.pixels)))


def _read(folder: Path, shard: Shard, about: About) -> Iterator[tuple[str, AnyArray]]:
    objects, black = _objects(about), bytes(pixel_bytes(about.plan))
    numbered = enumerate(zip(_places(shard, about), shard.entries, strict=True), shard.start + 1)
    for number, (place, entry) in numbered:
        made = objects.make(entry, number, black)
        yield entry.name, compared(folder / place.file, place.file, made, about.plan, 1)[0]


DICOM = Format(
    name="dicom",
    purpose="an object an image, for a viewer, a PACS or an annotation tool",
    needs=NEEDS,
    opened_by='pydicom.dcmread("DIR/dicom/00000/NAME.dcm")',
    per_shard=lambda plan: LARGEST_FOLDER,
    places=_places,
    write=_write,
    read=_read,
)
