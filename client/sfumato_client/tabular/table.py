"""A CSV held against its schema: cells by column and row, with each row's patient. Errors never hold a value.

They name the column and the line, are for the steward's screen, and stay there.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sfumato_client.dataset.splits import keyed_split
from sfumato_client.tabular.coding import MISSING, Cells
from sfumato_client.tabular.schema import AnyColumn, NumericColumn, TableSchema
from sfumato_common.accounting.members import Members, key_name, pseudonym
from sfumato_common.errors import DataError
from sfumato_common.mechanisms.streams import SecretStream


@dataclass(frozen=True, eq=False)
class Table:
    """`cells` [N, C] of all columns of the schema, in its order; `patients` [N] are ids, which never leave this module.

    `clipped` counts values beyond their bounds by column: data-dependent, for the local report alone.
    """

    cells: Cells = field(repr=False)
    patients: tuple[str, ...] = field(repr=False)
    clipped: dict[str, int] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Parts:
    """One row a patient [P, C]: those that may be trained on and released, and those that only the report sees."""

    train: Cells = field(repr=False)
    holdout: Cells = field(repr=False)

    @property
    def patients(self) -> int:
        """Exact number of patients; never leaves the site."""
        return len(self.train) + len(self.holdout)


def check_header(path: Path, schema: TableSchema) -> None:
    """Raise DataError unless the CSV's header has the schema's columns and no others; reads no row."""
    with _reading(path) as stream:
        _places(next(csv.reader(stream, strict=True), []), schema, path.name)


def read_table(path: Path, schema: TableSchema) -> Table:
    """Every row of the CSV. Raises DataError with line and column, and without the value, at the first wrong cell."""
    rows: list[list[int]] = []
    patients: list[str] = []
    seen: Counter[tuple[str, ...]] = Counter()
    clipped = dict.fromkeys(schema.columns, 0)
    with _reading(path) as stream:
        reader = csv.reader(stream, strict=True)
        header = next(reader, [])
        places = _places(header, schema, path.name)
        for texts in reader:
            where = f"table '{path.name}', line {reader.line_num}"
            if len(texts) != len(header):
                raise DataError(f"{where}: it has not as many cells as the header; look for missing or extra commas")
            own = tuple(texts[places[name]].strip() for name in schema.columns)
            rows.append([])
            for (name, column), text in zip(schema.columns.items(), own, strict=True):
                cell, outside = _cell(column, text, f"{where}, column '{name}'")
                rows[-1].append(cell)
                clipped[name] += outside
            if schema.patient is None:
                # by what it says and not by where it stands: a row more or less must not move others between the parts
                patients.append("\x1f".join(("row", *own, str(seen[own]))))
                seen[own] += 1
            elif not (patient := texts[places[schema.patient]].strip()):
                raise DataError(f"{where}: it names no patient; fill the column '{schema.patient}'")
            else:
                patients.append(patient)
    cells = np.array(rows, dtype=np.int64).reshape(len(rows), len(schema.columns))
    return Table(cells, tuple(patients), clipped)


def without(table: Table, split_key: bytes, withdrawn: Collection[str]) -> Table:
    """The table without rows of patients of these pseudonyms: where the identifiers are those of the images."""
    left = [row for row, name in enumerate(table.patients) if pseudonym(split_key, name) not in withdrawn]
    return replace(table, cells=table.cells[left], patients=tuple(table.patients[row] for row in left))


def split(table: Table, split_key: bytes, secret: SecretStream) -> Parts:
    """One randomly drawn row a patient; 80 % of patients train, by the keyed hash that splits images too."""
    rows_of: dict[str, list[int]] = {}
    for row, patient in enumerate(table.patients):
        rows_of.setdefault(patient, []).append(row)
    train: list[int] = []
    holdout: list[int] = []
    picked = secret.below([len(rows) for rows in rows_of.values()]).tolist()
    for (patient, rows), pick in zip(rows_of.items(), picked, strict=True):
        row = rows[pick]
        (holdout if keyed_split(split_key, patient) == "holdout" else train).append(row)
    return Parts(table.cells[train], table.cells[holdout])


def train_members(table: Table, split_key: bytes) -> Members:
    """Whom `split` trains on, by pseudonym, where `patients` are the identifiers that images are stored under."""
    train = {name for name in set(table.patients) if keyed_split(split_key, name) == "train"}
    return Members(key_name(split_key), train=frozenset(pseudonym(split_key, name) for name in train))


def _places(header: list[str], schema: TableSchema, name: str) -> dict[str, int]:
    """Where each column stands. Raises DataError for a header that is not the schema's."""
    columns = [text.strip() for text in header]
    known = {*schema.columns, *schema.leave_out, *([schema.patient] if schema.patient else [])}
    if twice := [column for column, times in Counter(columns).items() if times > 1]:
        raise DataError(f"table '{name}' has two columns '{twice[0]}'; rename one")
    if missing := sorted(known - set(columns)):
        raise DataError(f"table '{name}' has no column '{missing[0]}', which the schema names")
    if unknown := [column for column in columns if column not in known]:
        raise DataError(
            f"table '{name}' has a column '{unknown[0]}' that the schema does not know; describe it under 'columns' or "
            "name it in 'leave_out'"
        )
    return {column: place for place, column in enumerate(columns)}


def _cell(column: AnyColumn, text: str, where: str) -> tuple[int, bool]:
    """The cell of a text, and whether it lay outside its bounds. Raises DataError, which does not hold the text."""
    if not text:
        if not column.missing:
            raise DataError(f"{where}: the cell is empty; fill it, or write 'missing: true' in the schema")
        return MISSING, False
    if not isinstance(column, NumericColumn):
        if text not in column.levels:
            raise DataError(f"{where}: it holds a level that the schema does not name; correct it, or add the level")
        return column.levels.index(text), False
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: it holds no plain number; write one, with a point and without units")
    inside = min(max(value, column.low), column.high)
    return round((inside - column.low) * 10**column.digits), inside != value


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield stream
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"table '{path.name}' cannot be read ({type(error).__name__}); check the file") from None
