"""What a compressed frame is by its own first bytes: JPEG (T.81), JPEG-LS, JPEG 2000 or JPEG XL.

A header may name another transfer syntax than its pixel data have: archives transcode one and forget the other.
"""

from __future__ import annotations

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from sfumato_common.dicom.elements import Note, integer, named
from sfumato_common.dicom.unreadable import UnreadableError

_JPEG = "1.2.840.10008.1.2.4."
# transfer syntaxes of DICOM (PS3.6 A) by family of decoders; the first stands for the family
JPEG_8_TO_16 = tuple(_JPEG + end for end in ("50", "51", "57", "70"))
JPEG_LS = tuple(_JPEG + end for end in ("80", "81"))
JPEG_2000 = tuple(_JPEG + end for end in ("90", "91", "201", "202", "203"))
JPEG_XL = tuple(_JPEG + end for end in ("110", "111", "112"))
FAMILIES = (JPEG_8_TO_16, JPEG_LS, JPEG_2000, JPEG_XL)
_ITEM = b"\xfe\xff\x00\xe0"
_JPEG_2000_MARKS = (b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  ")
_JPEG_XL_MARKS = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")
_LS_FRAME, _SCAN, _CODING_STYLE = 0xF7, 0xDA, 0x52


def family_of(stream: bytes) -> tuple[str, ...] | None:
    """The transfer syntaxes that a stream may have, or None where its first bytes are of none."""
    if stream.startswith(_JPEG_2000_MARKS):
        return JPEG_2000
    if stream.startswith(_JPEG_XL_MARKS):
        return JPEG_XL
    if not stream.startswith(b"\xff\xd8\xff"):
        return None
    return JPEG_LS if segment(stream, _LS_FRAME) is not None else JPEG_8_TO_16


def is_transformed(stream: bytes) -> bool:
    """Whether a JPEG 2000 stream says that its colours were transformed, so that they decode to RGB (T.800 A.6.1)."""
    start = stream.find(_JPEG_2000_MARKS[0])
    style = segment(stream[start:], _CODING_STYLE) if start >= 0 else None
    return style is not None and len(style) > 4 and style[4] == 1


def segment(stream: bytes, wanted: int) -> bytes | None:
    """The content of the first segment of a marker before the scan or tile, or None."""
    place = 2
    while place + 4 <= len(stream) and stream[place] == 0xFF:
        marker = stream[place + 1]
        length = int.from_bytes(stream[place + 2 : place + 4], "big")
        if marker == wanted:
            return stream[place + 4 : place + 2 + length]
        if marker == _SCAN or marker == 0x90:
            return None
        place += 1 if marker == 0xFF else 2 + length
    return None


def mend_transfer_syntax(dataset: Dataset, note: Note) -> None:
    """Set the transfer syntax that the pixel data have, where the file says none, an unknown one, or another.

    Raises UnreadableError for compressed pixel data that say no more than their header.
    """
    meta = getattr(dataset, "file_meta", None)
    dataset.file_meta = meta = meta if meta is not None else FileMetaDataset()
    said = UID(str(meta.get("TransferSyntaxUID") or "").strip(" \0"))
    known = said.is_transfer_syntax or any(said in family for family in FAMILIES)
    what = f"{named('TransferSyntaxUID')} is " + (f"{said.name}" if known else "missing or unknown")
    if not _is_encapsulated(dataset):
        if (family := _bare_stream(dataset)) is not None:
            note(f"its {named('PixelData')} are a stream that is not cut into items: read as {UID(family[0]).name}")
            meta.TransferSyntaxUID = said if said in family else UID(family[0])
            return
        if not known or said.is_encapsulated:
            found = _written_as(dataset)
            note(f"its {what}: read as {found.name}")
            meta.TransferSyntaxUID = found
        return
    family = family_of(_first_frame(dataset))
    if family is None and not (known and said.is_compressed):
        raise UnreadableError(f"its {what}, and its {named('PixelData')} are compressed in a form that is not known")
    if family is not None and said not in family:
        note(f"its {what}: read as {UID(family[0]).name}, as the pixel data say")
        meta.TransferSyntaxUID = UID(family[0])


def _bare_stream(dataset: Dataset) -> tuple[str, ...] | None:
    """The family of a compressed stream that lies in Pixel Data as it is, which is put into items then; else None."""
    data = dataset.get("PixelData")
    samples = (integer(dataset, "Rows") or 0) * (integer(dataset, "Columns") or 0)
    if not isinstance(data, bytes) or len(data) >= samples or (integer(dataset, "NumberOfFrames") or 1) != 1:
        return None  # as long as a picture is: its first pixels look so by chance
    if (family := family_of(data)) is not None:
        dataset.PixelData = encapsulate([data], has_bot=False)
        dataset["PixelData"].is_undefined_length = True
    return family


def _is_encapsulated(dataset: Dataset) -> bool:
    data = dataset.get("PixelData")
    return isinstance(data, bytes) and data[:4] == _ITEM and bool(dataset["PixelData"].is_undefined_length)


def _written_as(dataset: Dataset) -> UID:
    implicit, little = dataset.original_encoding
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _first_frame(dataset: Dataset) -> bytes:
    try:
        return get_frame(dataset.PixelData, 0, number_of_frames=integer(dataset, "NumberOfFrames") or 1)
    except Exception:  # whatever is wrong with the fragments, decoding says it
        return b""
