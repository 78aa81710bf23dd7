"""A folder of PNG, JPEG or TIFF files with a table (`file,patient_id,label[,split][,laterality][,view]`)."""

from __future__ import annotations

import io
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from sfumato_client.ingest.burned_in import cleared
from sfumato_client.ingest.deep import deep_jpeg, deep_png, turned
from sfumato_client.ingest.depth import shown
from sfumato_client.ingest.folders import content
from sfumato_client.ingest.jobs import Job, Results
from sfumato_client.ingest.records import Facts, SiteImage, TextPolicy, to_form, view_of_row
from sfumato_client.ingest.table import Labels, patient_of, split_name
from sfumato_client.ingest.tiff import tiff_picture
from sfumato_common.dicom.elements import Note
from sfumato_common.dicom.jpeg import jpeg_frame, require_whole
from sfumato_common.dicom.marks import kind_of_file
from sfumato_common.dicom.unreadable import UnreadableError
from sfumato_common.imaging import SIGNATURE
from sfumato_common.study.terms import ImageForm

PNG, ALL_FORMATS = ("PNG",), ("PNG", "JPEG", "TIFF")
_MARKS = {SIGNATURE[:4]: "PNG", b"\xff\xd8\xff": "JPEG", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
_MARKS |= {b"II+\0": "TIFF", b"MM\0+": "TIFF"}  # BigTIFF
# what makes and turns the picture, and what would make it an animation; text, colour and time chunks may be of any size
_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT", b"eXIf"}
_DEEP_GREY = {"I", "I;16", "I;16B", "I;16L"}
_ORIENTATION = 274
_LARGEST_SIDE = 2**15


@dataclass(frozen=True)
class Taking:
    """What of a folder is taken and how; `bits` is the depth that all 16-bit files hold, where the source says it."""

    form: ImageForm
    labels: Labels
    formats: Collection[str] = PNG
    bits: int | None = None
    text: TextPolicy = "reject"


def read_picture(job: Job, taking: Taking) -> Results:
    """The image of one file. Raises UnreadableError with the reason why there is none."""
    row = job.row
    patient, label = patient_of(row["patient_id"]), taking.labels.index(row["label"])
    # with a split column every row must say its split: a silent mixture would make one patient's row decide for all
    split = split_name(row["split"]) if job.splits else None
    view, notes = view_of_row(row), list[str]()
    try:
        display = _display(job.path, taking.formats, taking.bits, notes.append)
    except (UnreadableError, MemoryError):
        raise
    except Exception:  # a broken file must not stop the site, whatever the decoder raises
        raise UnreadableError("the file is damaged or cut off: it cannot be decoded") from None
    pixels = to_form(cleared(display, taking.text, notes.append), taking.form)
    return [SiteImage(pixels, label, patient, split, view, tuple(notes), Facts(row["file"]))]


def _display(path: Path, formats: Collection[str], bits: int | None, note: Note) -> npt.NDArray[np.float32]:
    """Display values 0..1: [H, W] for grey (1 to 16 bits), [H, W, 3] for colour and palettes; transparency ignored."""
    data = content(path)
    found = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None)
    if found is None:
        kinds = "no PNG" if set(formats) == set(PNG) else "neither PNG, nor JPEG, nor TIFF"
        raise UnreadableError(f"{kinds}: it is {kind_of_file(data)}")
    if found not in formats:
        raise UnreadableError(f"a {found} file, whatever its name; write 'kind: images' in the source to read it")
    if found == "JPEG":
        frame = jpeg_frame(data)
        data = require_whole(data, frame)
        if (deep := deep_jpeg(data, frame)) is not None:
            return deep
    if found == "TIFF" and (whole := tiff_picture(data, _LARGEST_SIDE, bits, note)) is not None:
        return whole
    if found == "PNG":
        data = _bare(data)
    with Image.open(io.BytesIO(data), formats=[found]) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise UnreadableError("it has several pictures; only single ones are taken")
        if max(image.size) > _LARGEST_SIDE:
            raise UnreadableError("it is larger than any radiograph")
        if found == "PNG" and (deep := deep_png(data, bits, note)) is not None:
            return turned(deep, image.getexif().get(_ORIENTATION))
        upright = ImageOps.exif_transpose(image)  # cameras store a turn instead of turning
        return _values(upright, bits, note)


def _values(image: Image.Image, bits: int | None, note: Note) -> npt.NDArray[np.float32]:
    if image.mode in _DEEP_GREY:
        samples = np.asarray(image)
        if samples.min() < 0 or samples.max() > 0xFFFF:
            raise UnreadableError("it holds values of more than 16 bits")
        return shown(samples.astype(np.uint16), bits, note)
    mode = "L" if image.mode in {"1", "L", "LA"} else "RGB"
    if image.mode in {"F", "CMYK"}:
        raise UnreadableError("it holds floating numbers or inks, which have no agreed black and white")
    return np.asarray(image.convert(mode), dtype=np.float32) / np.float32(255)


def _bare(png: bytes) -> bytes:
    """The PNG without what is no part of its picture; as it is where its chunks do not fit."""
    kept, place = [SIGNATURE], len(SIGNATURE)
    while place + 12 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, place)
        end = place + 12 + length
        if end > len(png):
            return png
        if kind in _CHUNKS:
            kept.append(png[place:end])
        place = end
    return b"".join(kept)
