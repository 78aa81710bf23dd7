"""A description of a source to begin with: commented, filled in with what somebody said, and valid as it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sfumato_common.strict import yaml_word
from sfumato_common.templates import template_text

_PACKAGE = "sfumato_client.ingest"
_OWN = {"dicom": "dicom.yaml", "nifti": "nifti.yaml", "png": "pictures.yaml", "images": "pictures.yaml"}


def source_text(kind: Literal["dicom", "png", "images", "nifti", "npz"], folder: Path, table: Path, site: str) -> str:
    """The text of a source of that kind: images in `folder`, labels in `table`; `site` is for npz alone."""
    if kind == "npz":
        return template_text(_PACKAGE, "npz.yaml", table=yaml_word(str(table)), site=yaml_word(site))
    # DICOM files say themselves whose they are
    columns = "file and label" if kind == "dicom" else "file, patient_id and label"
    return template_text(
        _PACKAGE,
        "folder.yaml",
        kind=kind,
        folder=yaml_word(str(folder)),
        table=yaml_word(str(table)),
        columns=columns,
        own=template_text(_PACKAGE, _OWN[kind]),
    )
