"""A steward's labels joined to what came from the PACS by accession number, UID or patient id: an ingestable source."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sfumato_client.pacs.accessions import ACCESSION_NAMES
from sfumato_client.pacs.headers import Header
from sfumato_client.pacs.index import INDEX, read_index
from sfumato_common.errors import ConfigError, DataError
from sfumato_common.files import write_atomic
from sfumato_common.strict import yaml_text
from sfumato_common.tables import Row, read_table

LABELS, SOURCE = "labels.csv", "source.yaml"
# how a table may call what it joins by, the most exact first; letters and digits alone count
_KEYS = {
    "instance": ("instance", "instanceuid", "sopinstanceuid"),
    "series": ("series", "seriesuid", "seriesinstanceuid"),
    "study": ("study", "studyuid", "studyinstanceuid"),
    "accession": ACCESSION_NAMES,
    "patient": ("patient", "patientid"),
}
# what an ingest reads beside file and label
_CARRIED = ("split", "laterality", "view")


@dataclass(frozen=True)
class Labelled:
    """How a join went: by what, images with and without a label, rows of the table that met no image."""

    by: str
    images: int
    unlabelled: int
    unmet: int
    made_source: bool


def label_incoming(root: Path, table: Path, label: str = "label") -> Labelled:
    """Write `labels.csv` (file,label) and, where there is none, `source.yaml` into `root` (the folder `incoming`).

    `table` has a column of labels and one of accession numbers, UIDs or patient ids. Raises DataError, which names
    lines and never values, for a table that cannot be joined, and ConfigError where nothing was fetched.
    """
    index, _ = read_index(root)
    if not index:
        raise ConfigError(f"there is no '{INDEX}' in '{root.name}'; run 'sfumato-site pacs fetch' first")
    rows = read_table(table, (label,))
    by, column = _key(rows[0], table)
    wanted = _by_key(rows, column, label, table)
    carried = [name for name in _CARRIED if name in rows[0] and name != label]
    met = set[str]()
    lines = []
    for name, header in sorted(index.items()):
        row = wanted.get(_said(header, by))
        if row is not None:
            met.add(row[column])
            lines.append([name, row[label], *(row[each] for each in carried)])
    if not lines:
        raise DataError(
            f"no row of '{table.name}' meets an image that was fetched, by its column '{column}'; look whether a "
            "spreadsheet has changed the numbers (leading zeros), and whether these studies were fetched"
        )
    _write(root / LABELS, ["file", "label", *carried], lines)
    made = not (root / SOURCE).exists()
    if made:
        whole = root.resolve()
        source = {"kind": "dicom", "folder": str(whole / "images"), "labels": str(whole / LABELS)}
        write_atomic(root / SOURCE, yaml_text(source), mode=0o600)
    return Labelled(by, len(lines), len(index) - len(lines), len(wanted) - len(met), made)


def _key(row: Row, table: Path) -> tuple[str, str]:
    """By what a table joins, and its column of it."""
    plain = {"".join(sign for sign in name if sign.isalnum()): name for name in row}
    for by, names in _KEYS.items():
        for name in names:
            if name in plain:
                return by, plain[name]
    raise DataError(
        f"table '{table.name}' has no column to join by: 'accession', 'study_uid', 'series_uid', 'instance_uid' or "
        "'patient_id'; name one so"
    )


def _by_key(rows: list[Row], column: str, label: str, table: Path) -> Mapping[str, Row]:
    """Rows by the value of their key. Raises DataError where one has two labels: the steward has to say which holds."""
    found: dict[str, Row] = {}
    labels = defaultdict[str, set[str]](set)
    for number, row in enumerate(rows, 1):
        if not row[column]:
            raise DataError(f"table '{table.name}' row {number} has an empty '{column}'; fill or remove it")
        labels[row[column]].add(row[label])
        if len(labels[row[column]]) > 1:
            raise DataError(
                f"table '{table.name}' row {number} gives another label to what an earlier row has in '{column}'; "
                "keep one, or join by a UID that tells them apart"
            )
        found.setdefault(row[column], row)
    return found


def _said(header: Header, by: str) -> str:
    return str(getattr(header, by))


def _write(path: Path, columns: list[str], lines: list[list[str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([columns, *lines])
    write_atomic(path, text.getvalue(), mode=0o600)
