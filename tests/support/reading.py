"""Reading as a source does it, for tests that have a folder and a table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sfumato_client.ingest import SiteImage, Skipped, read_source
from sfumato_client.ingest.sources import DicomSource, ImagesSource, NpzSource, PngSource
from sfumato_common.study.terms import ImageForm

Read = Iterator[SiteImage | Skipped]


def read_dicom(folder: Path, table: Path, form: ImageForm, labels: list[str], **terms: Any) -> Read:
    """A folder of DICOM files."""
    return read_source(DicomSource(kind="dicom", folder=folder, labels=table, **terms), form, labels)


def read_pngs(folder: Path, table: Path, form: ImageForm, labels: list[str], **terms: Any) -> Read:
    """A folder of PNG files."""
    return read_source(PngSource(kind="png", folder=folder, labels=table, **terms), form, labels)


def read_images(folder: Path, table: Path, form: ImageForm, labels: list[str], **terms: Any) -> Read:
    """A folder of PNG, JPEG and TIFF files."""
    return read_source(ImagesSource(kind="images", folder=folder, labels=table, **terms), form, labels)


def read_npz(index: Path, site: str, form: ImageForm, labels: list[str]) -> Read:
    """A site's rows of an index."""
    return read_source(NpzSource(kind="npz", index=index, site=site), form, labels)
