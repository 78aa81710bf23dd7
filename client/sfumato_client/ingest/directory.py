"""A DICOMDIR (PS3.3 F, PS3.10 8): which file of a medium holds which SOP Instance."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path

from pydicom import Dataset, dcmread

from sfumato_client.ingest.folders import content
from sfumato_common.dicom.unreadable import UnreadableError
from sfumato_common.errors import DataError

_MOST_BYTES = 2**28


def read_directory(path: Path) -> dict[str, str]:
    """Relative names of files by SOP Instance UID. Raises DataError for a file that is no DICOMDIR."""
    wrong = DataError(
        f"'{path.name}' is damaged or no DICOMDIR; copy it again, or remove it and name files by their paths"
    )
    try:
        data = content(path)
    except UnreadableError:
        raise wrong from None
    if len(data) > _MOST_BYTES:
        raise wrong
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dict(_files(dcmread(io.BytesIO(data))))
    except Exception:  # pydicom raises what its converters raise
        raise wrong from None


def _files(directory: Dataset) -> Iterator[tuple[str, str]]:
    for record in directory.DirectoryRecordSequence:
        parts, instance = record.get("ReferencedFileID"), record.get("ReferencedSOPInstanceUIDInFile")
        if parts and instance:
            yield str(instance), str(parts) if isinstance(parts, str) else "/".join(map(str, parts))
