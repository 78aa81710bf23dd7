"""What a file is by its first bytes, for a reason that says more than what it is not."""

from __future__ import annotations

_MARKS = (
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive or an Office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"SIMPLE  =", "a FITS picture"),
    (b"version https://git-lfs", "a pointer of Git LFS, which has no picture yet: fetch the files"),
    (b"\x93NUMPY", "a numpy array"),
    (b"\x89HDF", "an HDF5 file"),
    (b"<!DOCTYPE html", "an HTML page, as a failed download leaves"),
    (b"<html", "an HTML page, as a failed download leaves"),
)


def kind_of_file(data: bytes) -> str:
    """A few words for what a file is: `a GIF picture`, `empty`, `of another kind`."""
    if not data.strip(b"\0"):
        return "empty"
    if data[128:132] == b"DICM":
        return "a DICOM file, which 'kind: dicom' reads"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "a WebP picture"
    if data[4:8] == b"ftyp":
        return "a HEIC or AVIF picture, or a film"
    return next((words for mark, words in _MARKS if data.startswith(mark)), "of another kind")
