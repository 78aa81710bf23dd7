"""CSV files with a header line, as people and spreadsheets write them."""

from __future__ import annotations

import csv
from pathlib import Path

from sfumato_common.errors import DataError

Row = dict[str, str]
# of an index of npz archives: a row an image
INDEX_COLUMNS = ("set", "row", "site", "patient_id", "split", "abnormal")


def read_table(path: Path, required: tuple[str, ...]) -> list[Row]:
    """Rows of a CSV with a header line; values stripped. Raises DataError when unreadable or a column is missing."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            columns = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            rows = [{key: (value or "").strip() for key, value in row.items() if key is not None} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error, AttributeError) as error:
        raise DataError(f"table '{path.name}' cannot be read ({type(error).__name__}); check the path") from None
    if missing := [name for name in required if name not in columns]:
        raise DataError(f"table '{path.name}' has no column '{missing[0]}'; it needs {','.join(required)}")
    if not rows:
        raise DataError(f"table '{path.name}' has no rows; list the images in it")
    return rows
