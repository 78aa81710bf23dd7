"""DICOM, an object an image: Secondary Capture Image Storage (PS3.3 A.8.1), written with highdicom."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sfumato_common.errors import VerificationError
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, pixel_dtype
from sfumato_server.publish.formats.base import LARGEST_FOLDER, About, Format, Place, Shard
from sfumato_server.publish.formats.headers import Header, header
from sfumato_server.publish.manifest import ImageEntry
from sfumato_server.publish.reading import PublishedImage

NEEDS = ("highdicom", "pydicom")
# who wrote the file, in the file's own group: the same whichever version of a library did
_IMPLEMENTATION_UID, _IMPLEMENTATION = "2.25.302871862126387029387250347563929614389", "SFUMATO_1"
_CLOCK = ("ContentTime", "TimeOfSecondaryCapture", "InstanceCreationDate", "InstanceCreationTime")
_MOVED = (*_CLOCK, "DateOfSecondaryCapture", "SeriesDate", "SeriesTime")


def common(said: Header, number: int, entry: ImageEntry) -> dict[str, Any]:
    """What highdicom wants to know of any object, in its own words."""
    return {
        "study_instance_uid": said.study_uid,
        "series_instance_uid": said.series_uid,
        "series_number": 1,
        "sop_instance_uid": said.instance_uid,
        "instance_number": 1,
        "manufacturer": "Sfumato",
        "manufacturer_model_name": entry.model,
        "patient_id": entry.name,
        "patient_name": said.name,
        "study_id": str(number),
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
    }


def finish(dataset: Any, said: Header, entry: ImageEntry) -> bytes:
    """The object as the bytes of a file (PS3.10), with the header's elements and no clock's.

    Contributing equipment: (109100, DCM, "Synthesizing Equipment") of CID 7005 (PS3.16).
    """
    import pydicom
    from highdicom.base_content import ContributingEquipment
    from pydicom.sr.codedict import codes

    for keyword in _MOVED:
        if keyword in dataset:
            delattr(dataset, keyword)
    for keyword, value in said.elements.items():
        setattr(dataset, keyword, value)
    # type 2 or 2C, and nobody knows
    dataset.PatientOrientation = None
    dataset.ContributingEquipmentSequence = [
        ContributingEquipment(
            "Sfumato",
            codes.DCM.SynthesizingEquipment,
            manufacturer_model_name=entry.model,
            contribution_description=f"Made by {entry.method} from model {entry.model}",
        )
    ]
    dataset.file_meta.ImplementationClassUID = _IMPLEMENTATION_UID
    dataset.file_meta.ImplementationVersionName = _IMPLEMENTATION
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


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
    dtype = pixel_dtype(plan.image.bits).newbyteorder("<")
    shape = (frames, *plan.image.shape)
    length = int(np.prod(shape)) * dtype.itemsize
    data = read_exactly(path, name, len(made))
    start = len(made) - length - length % 2
    if data[:start] != made[:start] or data[start + length :] != made[start + length :]:
        raise VerificationError(f"{name}: its header is not the one that is made from the signed entry and the plan")
    return (
        np.frombuffer(data, dtype, count=int(np.prod(shape)), offset=start)
        .reshape(shape)
        .astype(dtype.newbyteorder("="))
    )


def _object(entry: ImageEntry, number: int, pixels: AnyArray, about: About) -> bytes:
    from highdicom.sc import SCImage

    said = header(entry, number, about, "image")
    grey = pixels.ndim == 2
    dataset = SCImage(
        pixel_array=pixels,
        photometric_interpretation="MONOCHROME2" if grey else "RGB",
        bits_allocated=about.plan.image.bits,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        **common(said, number, entry),
    )
    window(dataset, about.plan)
    return finish(dataset, said, entry)


def _places(shard: Shard, about: About) -> Sequence[Place]:
    return [Place(f"dicom/{shard.number:05d}/{entry.name}.dcm") for entry in shard.entries]


def _write(folder: Path, shard: Shard, images: Iterable[PublishedImage], about: About) -> None:
    (folder / f"dicom/{shard.number:05d}").mkdir(parents=True)
    numbered = enumerate(zip(_places(shard, about), images, strict=True), shard.start + 1)
    for number, (place, image) in numbered:
        (folder / place.file).write_bytes(_object(image.entry, number, image.pixels, about))


def _read(folder: Path, shard: Shard, about: About) -> Iterator[tuple[str, AnyArray]]:
    black = np.zeros(about.plan.image.shape, pixel_dtype(about.plan.image.bits))
    numbered = enumerate(zip(_places(shard, about), shard.entries, strict=True), shard.start + 1)
    for number, (place, entry) in numbered:
        made = _object(entry, number, black, about)
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
