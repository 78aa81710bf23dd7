"""DICOM, many frames an object: Multi-frame Grayscale Byte, Grayscale Word and True Color SC (PS3.3 A.8.3 to A.8.5).

An object holds images of which all but name and pixels is said alike: of one site, class, model and method. Frame
Label Vector (0018,2002) has the first 15 digits of each frame's image name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray
from sfumato_server.publish.formats.base import About, Format, Place, Shard, fitting, pixel_bytes
from sfumato_server.publish.formats.dicom import NEEDS, Objects, compared, facts_of, plain, unnamed
from sfumato_server.publish.manifest import ImageEntry
from sfumato_server.publish.reading import PublishedImage

_MOST, _BYTES = 1000, 64_000_000
_FRAMES = 256
# a value of Frame Label Vector has at most 16 characters; 15 and what parts them from the next are never padded
_DIGITS = 15
# SOP class by (channels, bits): PS3.4 B.5
_CLASSES = {
    (1, 8): "1.2.840.10008.5.1.4.1.1.7.2",
    (1, 16): "1.2.840.10008.5.1.4.1.1.7.3",
    (3, 8): "1.2.840.10008.5.1.4.1.1.7.4",
}


class _Group(NamedTuple):
    """The images of one object: their places in the shard, in order."""

    file: str
    at: list[int]


def _groups(shard: Shard) -> list[_Group]:
    found: list[_Group] = []
    latest: dict[tuple[str, ...], _Group] = {}
    for at, entry in enumerate(shard.entries):
        alike = facts_of(entry)
        if alike not in latest or len(latest[alike].at) == _FRAMES:
            file = f"dicom/{shard.number:05d}/{entry.site}-{entry.label}-{len(found):03d}.dcm"
            latest[alike] = _Group(file, [])
            found.append(latest[alike])
        latest[alike].at.append(at)
    return found


def _objects(about: About) -> Objects:
    """Objects of many frames; what they share is in the modules SC Image and SC Multi-frame (PS3.3 C.8.6)."""
    from highdicom.base import SOPClass

    form = about.plan.image

    def template(entry: ImageEntry) -> Any:
        dataset = SOPClass(sop_class_uid=_CLASSES[form.channels, form.bits], modality="OT", **unnamed(entry))
        dataset.Rows = dataset.Columns = form.size
        dataset.SamplesPerPixel = form.channels
        dataset.PhotometricInterpretation = "MONOCHROME2" if form.channels == 1 else "RGB"
        dataset.BitsAllocated = dataset.BitsStored = form.bits
        dataset.HighBit, dataset.PixelRepresentation = form.bits - 1, 0
        if form.channels == 3:
            dataset.PlanarConfiguration = 0
        else:
            dataset.PresentationLUTShape, dataset.RescaleType = "IDENTITY", "US"
            dataset.RescaleIntercept, dataset.RescaleSlope = "0", "1"
        dataset.FrameIncrementPointer = 0x00182002
        return dataset

    return Objects(about, "frames", template)


def _made(objects: Objects, shard: Shard, group: _Group, pixels: bytes) -> bytes:
    """The object of a group of a shard's images."""
    entries = [shard.entries[at] for at in group.at]
    labels = "\\".join(entry.name[:_DIGITS] for entry in entries)
    number = shard.start + group.at[0] + 1
    return objects.make(entries[0], number, pixels, NumberOfFrames=str(len(entries)), FrameLabelVector=labels)


def _places(shard: Shard, about: About) -> Sequence[Place]:
    found: dict[int, Place] = {}
    for group in _groups(shard):
        found.update({at: Place(group.file, f"frame {frame}") for frame, at in enumerate(group.at, 1)})
    return [found[at] for at in range(len(shard.entries))]


def _write(folder: Path, shard: Shard, images: Iterable[PublishedImage], about: About) -> None:
    (folder / f"dicom/{shard.number:05d}").mkdir(parents=True)
    objects = _objects(about)
    # a shard is small enough to be held: its images come in their order, and its objects mix them
    held = [plain(image.pixels) for image in images]
    for group in _groups(shard):
        pixels = b"".join(held[at] for at in group.at)
        (folder / group.file).write_bytes(_made(objects, shard, group, pixels))


def _read(folder: Path, shard: Shard, about: About) -> Iterator[tuple[str, AnyArray]]:
    objects = _objects(about)
    found: dict[int, AnyArray] = {}
    for group in _groups(shard):
        made = _made(objects, shard, group, bytes(len(group.at) * pixel_bytes(about.plan)))
        frames = compared(folder / group.file, group.file, made, about.plan, len(group.at))
        found.update(zip(group.at, frames, strict=True))
    for at, entry in enumerate(shard.entries):
        yield entry.name, found[at]


def _per_shard(plan: Plan) -> int:
    return fitting(plan, _BYTES, _MOST)


DICOM_FRAMES = Format(
    name="dicom-multi-frame",
    purpose="an object of up to 256 frames a site and class, for a viewer that scrolls",
    needs=NEEDS,
    opened_by='pydicom.dcmread("DIR/dicom/00000/SITE-LABEL-000.dcm").pixel_array',
    per_shard=_per_shard,
    places=_places,
    write=_write,
    read=_read,
)
