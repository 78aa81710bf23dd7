"""Where a site's images come from: one configuration class and one line in `READERS` a kind of source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from sfumato_client.ingest.answers import Answers
from sfumato_client.ingest.jobs import Known, ReadFile, Results, Run, here, read_folder, unknown
from sfumato_client.ingest.records import SiteImage, Skipped, TextPolicy
from sfumato_client.ingest.table import OPTIONAL_COLUMNS, Labels, Listing
from sfumato_client.ingest.terms import Axis, FilePath, LabelFrom, Slices, Window, Word
from sfumato_common.errors import ConfigError, DataError
from sfumato_common.strict import Strict, load_kind
from sfumato_common.study.terms import ImageForm
from sfumato_common.tables import Row, iterate_table

Images = Iterator[SiteImage | Skipped]
Column = Literal["file", "label", "patient_id", "split", "laterality", "view"]


class _Source(Strict):
    """What every source may say beside where its images are."""

    bits: Literal[8, 10, 12, 14, 16] | None = None
    """How many bits all 16-bit files hold; left out, each is shown by its own."""
    ignored_columns: list[Word] = Field(default_factory=list)
    """Columns of the table that nothing reads."""
    answers: Answers = Field(default_factory=Answers)
    """What only the hospital knows of its data."""
    withdrawn: list[Word] | FilePath = Field(default_factory=list, repr=False)
    """Identifiers of patients who are taken no more: a list, or a file with one a line."""

    def withdrawn_ids(self) -> list[str]:
        """The patients who are taken no more. Raises DataError."""
        if not isinstance(self.withdrawn, Path):
            return self.withdrawn
        try:
            lines = self.withdrawn.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError):
            raise DataError(
                f"'{self.withdrawn.name}', which 'withdrawn' of the source names, cannot be read; write one identifier "
                "a line, as UTF-8"
            ) from None
        return [line.strip() for line in lines if line.strip()]


class _FolderSource(_Source):
    """A folder of files and the table that labels them."""

    folder: FilePath
    """The folder of the files, or a zip."""
    labels: FilePath
    """The table that labels them."""
    columns: dict[Column, Word] = Field(default_factory=dict)
    """What the table calls our columns: our name, then the table's."""
    map: dict[Word, Word | None] = Field(default_factory=dict)
    """What the table's words mean: a word, then the plan's label, or null to drop it."""
    text: TextPolicy = "reject"
    """An image with text in its pixels is left out, painted over, or taken without a look."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns without which the table says too little."""
        return "file", "patient_id", "label"

    def rows(self) -> Iterator[Row]:
        """The rows of the table, one by one. Raises DataError."""
        # a table may have one column for two of ours, as where an image's name is all that is known of its patient
        first, again = dict[str, str](), dict[str, str]()
        for ours, theirs in self.columns.items():
            if (one := first.setdefault(theirs.strip().lower(), ours)) != ours:
                again[ours] = one
        names = {str(ours): theirs for ours, theirs in self.columns.items() if ours not in again}
        needed = tuple(name for name in self.needs if name not in again)
        optional = [name for name in OPTIONAL_COLUMNS if name not in self.needs and name not in again]
        rows = iterate_table(self.labels, needed, optional, names, self.ignored_columns)
        return (row | {ours: row[one] for ours, one in again.items()} for row in rows) if again else rows

    def meaning(self, labels: list[str]) -> Labels:
        """What the table's labels mean in a plan of these `labels`. Raises ConfigError for one that it has not."""
        return Labels.of(labels, self.map)


class DicomSource(_FolderSource):
    """Folder of DICOM files and a table `file,label[,patient_id]`, without `label` where the files say it."""

    kind: Literal["dicom"]
    """DICOM files."""
    allow: list[Word] = Field(default_factory=list)
    """Objects that are not taken otherwise: modalities (`CT`, `US`), `burned-in`, `scanned`, `for-processing`."""
    frames: Literal["none", "first", "all"] | Annotated[int, Field(ge=1, le=10_000)] = "none"
    """Of multi-frame images: none, the first frame, all, or every n-th."""
    label_from: LabelFrom | None = None
    """Where the files, or reports beside them, say the labels."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns without which the table says too little."""
        return ("file",) if self.label_from else ("file", "label")


class PngSource(_FolderSource):
    """Folder of PNG files and a table `file,patient_id,label[,split]`."""

    kind: Literal["png"]
    """PNG files."""


class ImagesSource(_FolderSource):
    """Folder of PNG, JPEG and TIFF files and a table `file,patient_id,label[,split]`."""

    kind: Literal["images"]
    """PNG, JPEG and TIFF files."""


class NiftiSource(_FolderSource):
    """Folder of NIfTI volumes and a table `file,patient_id,label[,split]`; see `nifti` for how slices are shown."""

    kind: Literal["nifti"]
    """NIfTI volumes, of which slices are taken."""
    slices: Slices = "middle"
    """The middle slice, all, or every n-th."""
    axis: Axis = "axial"
    """Which way slices are cut."""
    window: Window | None = None
    """Values that are shown; left out, between two percentiles of the volume."""


class NpzSource(_Source):
    """One site's rows of an index table beside its npz archives."""

    kind: Literal["npz"]
    """Arrays beside an index."""
    index: FilePath
    """The index, a CSV."""
    site: Annotated[str, Field(min_length=1)]
    """Whose rows of it are read."""

    def rows(self) -> Iterator[Row]:
        """The rows of `site` in the index. Raises DataError."""
        from sfumato_client.ingest.npz import site_rows

        return iter(site_rows(self.index, self.site, self.ignored_columns))


AnySource = DicomSource | PngSource | ImagesSource | NiftiSource | NpzSource
SourceConfig = Annotated[AnySource, Field(discriminator="kind")]


# each reader is imported when it is used: a site that reads npz never loads pydicom
def _dicom(source: DicomSource, form: ImageForm, labels: list[str]) -> ReadFile:
    from sfumato_client.ingest.dicom import Taking, read_dicom_file
    from sfumato_client.ingest.labelled import labels_of

    allowed = {name.upper() for name in source.allow}
    said = labels_of(source.label_from, source.folder) if source.label_from else None
    taking = Taking(form, source.meaning(labels), allowed, source.frames, source.text, said)
    return lambda job: read_dicom_file(job, taking)


def _pictures(source: PngSource | ImagesSource, form: ImageForm, labels: list[str]) -> ReadFile:
    from sfumato_client.ingest.pictures import ALL_FORMATS, PNG, Taking, read_picture

    formats = PNG if source.kind == "png" else ALL_FORMATS
    taking = Taking(form, source.meaning(labels), formats, source.bits, source.text)
    return lambda job: read_picture(job, taking)


def _nifti(source: NiftiSource, form: ImageForm, labels: list[str]) -> ReadFile:
    from sfumato_client.ingest.nifti import Taking, read_nifti

    if source.bits is not None:
        raise ConfigError("'bits' is for PNG, TIFF and npz; write 'window' to say which values of NIfTI are shown")
    taking = Taking(form, source.meaning(labels), source.slices, source.axis, source.window, source.text)
    return lambda job: read_nifti(job, taking)


SOURCES: dict[str, type[AnySource]] = {
    "dicom": DicomSource,
    "png": PngSource,
    "images": ImagesSource,
    "nifti": NiftiSource,
    "npz": NpzSource,
}


def load_source(path: Path) -> AnySource:
    """Read a source's YAML description; its paths count from the working directory. Raises ConfigError."""
    return load_kind(path, SOURCES)


# readers of single files; an archive has none
READERS: dict[str, Callable[[Any, ImageForm, list[str]], ReadFile] | None] = {
    "dicom": _dicom,
    "png": _pictures,
    "images": _pictures,
    "nifti": _nifti,
    "npz": None,
}


def file_reader(source: AnySource, form: ImageForm, labels: list[str]) -> ReadFile | None:
    """What reads one file of a source, or None for a source without files.

    Raises ConfigError for a source that does not fit the plan, or whose look for text cannot be had.
    """
    make = READERS[source.kind]
    if not isinstance(source, NpzSource) and source.text != "allow":
        from sfumato_client.ingest.text_networks import require_networks

        require_networks()
    return make(source, form, labels) if make is not None else None


def prepare(source: AnySource) -> None:
    """What readers of a source need once, before the limits of one file hold: networks, and the labels of reports."""
    if not isinstance(source, NpzSource) and source.text != "allow":
        from sfumato_client.ingest.text_networks import networks

        networks().warm()
    if isinstance(source, DicomSource) and source.label_from and source.label_from.sr:
        from sfumato_client.ingest.labelled import read_reports

        read_reports(source.label_from.sr.folder or source.folder, source.label_from.sr)


def read_rows(
    source: AnySource,
    form: ImageForm,
    labels: list[str],
    run: Run | None = None,
    start: int = 0,
    known: Known = unknown,
    rows: Listing | None = None,
) -> Iterator[Results]:
    """The results of every row of a source from number `start` on, then of the files that no row lists.

    `run` runs the jobs (`pool.Pool.run`); without it they are run here. Rows of which `known` has the images are not
    read. `rows` are the source's, where they were looked at before. Raises DataError when folder or table cannot be
    read.
    """
    rows = rows or Listing(source.rows)
    if isinstance(source, NpzSource):
        from sfumato_client.ingest.npz import read_stamped

        yield from read_stamped(source.index.parent, rows, form, labels, source.bits, start, known)
        return
    read = file_reader(source, form, labels)
    assert read is not None
    yield from read_folder(source.folder, source.labels, rows, run or here(read), start, known)


def read_source(source: AnySource, form: ImageForm, labels: list[str]) -> Images:
    """Read a source lazily, image by image; the first step raises DataError when folder or table cannot be read."""
    for results in read_rows(source, form, labels):
        yield from results
