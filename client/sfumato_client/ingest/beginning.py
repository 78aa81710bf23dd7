"""A description of a source to begin with: commented, filled in with what somebody said, and valid as it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sfumato_common.strict import yaml_text
from sfumato_common.templates import template_text

_PACKAGE = "sfumato_client.ingest"
_OWN = {"dicom": "dicom.yaml", "nifti": "nifti.yaml", "png": "pictures.yaml", "images": "pictures.yaml"}


def source_text(kind: Literal["dicom", "png", "images", "nifti", "npz"], folder: Path, table: Path, site: str) -> str:
    """The text of a source of that kind: images in `folder`, labels in `table`; `site` is for npz alone."""
    if kind == "npz":
        return template_text(_PACKAGE, "npz.yaml", table=_word(str(table)), site=_word(site))
    # DICOM files say themselves whose they are
    columns = "file and label" if kind == "dicom" else "file, patient_id and label"
    return template_text(
        _PACKAGE,
        "folder.yaml",
        kind=kind,
        folder=_word(str(folder)),
        table=_word(str(table)),
        columns=columns,
        own=template_text(_PACKAGE, _OWN[kind]),
    )


def _word(text: str) -> str:
    """A word as YAML takes it."""
    return yaml_text([text]).removeprefix("- ").rstrip("\n")
