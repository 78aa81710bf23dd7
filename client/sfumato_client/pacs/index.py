"""`incoming/index.csv`: a row a file, by which a steward's labels find their images."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

from sfumato_client.pacs.headers import Header
from sfumato_common.files import write_atomic

INDEX = "index.csv"
_COLUMNS = ("file", *(field.name for field in fields(Header)))


def read_index(root: Path) -> tuple[dict[str, Header], int]:
    """Rows by file, and when they were written (ns); none where there is no index, or it is not one of ours."""
    path = root / INDEX
    try:
        written = path.stat().st_mtime_ns
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream, strict=True)
            if tuple(reader.fieldnames or ()) != _COLUMNS:
                return {}, 0
            return {row.pop("file"): Header(**row) for row in reader}, written
    except (OSError, ValueError, TypeError, csv.Error):
        return {}, 0


def write_index(root: Path, rows: Mapping[str, Header]) -> None:
    """Write the rows, sorted by file, for this user's eyes alone."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for name in sorted(rows):
        writer.writerow({"file": name, **asdict(rows[name])})
    write_atomic(root / INDEX, text.getvalue(), mode=0o600)
