"""A list of accession numbers (PS3.3 C.7.2.1): the studies that a steward names, one by one."""

from __future__ import annotations

from pathlib import Path

from sfumato_common.errors import DataError
from sfumato_common.tables import read_table

# how a table may call them; letters and digits alone count
ACCESSION_NAMES = ("accession", "accessionnumber", "accno", "accessionno")
_LONGEST = 16  # of the value representation SH
_PATTERN = set("*?\\")  # which a PACS would take for many numbers, or for two


def read_accessions(table: Path) -> tuple[str, ...]:
    """The accession numbers of a CSV, each once. Raises DataError, which names rows and never values."""
    rows = read_table(table, ())
    column = next((name for name in rows[0] if "".join(filter(str.isalnum, name)) in ACCESSION_NAMES), None)
    if column is None:
        raise DataError(f"table '{table.name}' has no column of accession numbers; name one 'accession'")
    for number, row in enumerate(rows, 1):
        value = row[column]
        if not value or len(value) > _LONGEST or set(value) & _PATTERN:
            raise DataError(
                f"table '{table.name}' row {number} has no accession number in '{column}': one has 1 to {_LONGEST} "
                "signs and none of * ? \\; correct or remove the row"
            )
    return tuple(dict.fromkeys(row[column] for row in rows))
