"""Where a site's images come from: one configuration class and one line in `READERS` a kind of source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from sfumato_client.ingest.records import SiteImage, Skipped
from sfumato_common.strict import Strict, load_yaml
from sfumato_common.study.terms import ImageForm

FilePath = Annotated[Path, Field(strict=False)]  # YAML has strings, not paths
Images = Iterator[SiteImage | Skipped]


class DicomSource(Strict):
    """Folder of DICOM files and a table `file,label`."""

    kind: Literal["dicom"]
    folder: FilePath
    labels: FilePath


class PngSource(Strict):
    """Folder of PNG files and a table `file,patient_id,label[,split]`."""

    kind: Literal["png"]
    folder: FilePath
    labels: FilePath


class NpzSource(Strict):
    """One site's rows of an index table beside its npz archives."""

    kind: Literal["npz"]
    index: FilePath
    site: Annotated[str, Field(min_length=1)]


SourceConfig = Annotated[DicomSource | PngSource | NpzSource, Field(discriminator="kind")]


# each reader is imported when it is used: a site that reads npz never loads pydicom
def _dicom(source: DicomSource, form: ImageForm, labels: list[str]) -> Images:
    from sfumato_client.ingest.dicom import read_dicom

    return read_dicom(source.folder, source.labels, form, labels)


def _png(source: PngSource, form: ImageForm, labels: list[str]) -> Images:
    from sfumato_client.ingest.pngs import read_pngs

    return read_pngs(source.folder, source.labels, form, labels)


def _npz(source: NpzSource, form: ImageForm, labels: list[str]) -> Images:
    from sfumato_client.ingest.npz import read_npz

    return read_npz(source.index, source.site, form, labels)


class _Kind(Strict):
    """Only which kind of source a file describes; the kind's own class then checks every key."""

    model_config = ConfigDict(extra="ignore")

    kind: Literal["dicom", "png", "npz"]


_SOURCES: dict[str, type[DicomSource | PngSource | NpzSource]] = {
    "dicom": DicomSource,
    "png": PngSource,
    "npz": NpzSource,
}


def load_source(path: Path) -> DicomSource | PngSource | NpzSource:
    """Read a source's YAML description; its paths count from the working directory. Raises ConfigError."""
    return load_yaml(path, _SOURCES[load_yaml(path, _Kind).kind])


READERS: dict[str, Callable[[Any, ImageForm, list[str]], Images]] = {"dicom": _dicom, "png": _png, "npz": _npz}


def read_source(source: DicomSource | PngSource | NpzSource, form: ImageForm, labels: list[str]) -> Images:
    """Read a source lazily, image by image; the first step raises DataError when folder or table cannot be read."""
    return READERS[source.kind](source, form, labels)
