"""Columns as vectors and back, by public maps alone: values uniform over their domain become standard normal.

Numbers and ordered levels are cells of a grid: spread uniformly over their cell (uniform dequantisation) and taken
through the normal quantile function. Unordered levels are normal vectors whose largest entry stands at the level
(argmax flows, Hoogeboom et al. 2021). So the untrained flow, which is the identity, means uniform over the domain, and
every vector decodes to values of the domain: bounds and levels hold whatever the noise was.
A cell is the number of a value in its column, from 0; MISSING is an empty one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sfumato_client.tabular.schema import AnyColumn, CategoricalColumn, NumericColumn
from sfumato_common.mechanisms.streams import SecretStream

MISSING = -1
Cells = npt.NDArray[np.int64]
# so far from a cell's border that the quantile function and its inverse cannot cross it
_MARGIN = 1e-6


@dataclass(frozen=True)
class _Grid:
    """Cells 0 .. count - 1 as one coordinate; what is no cell is spread over the whole grid, and says nothing."""

    count: int
    width = 1

    def encode(self, cells: Tensor, secret: SecretStream) -> Tensor:
        """[N] -> [N, 1]."""
        spread = secret.uniform64((len(cells),))
        within = (cells + spread.clamp(_MARGIN, 1.0 - _MARGIN)) / self.count
        anywhere = spread.clamp(_MARGIN / self.count, 1.0 - _MARGIN / self.count)
        x: Tensor = torch.special.ndtri(torch.where(cells >= 0, within, anywhere))
        return x[:, None]

    def decode(self, x: Tensor) -> Tensor:
        """[N, 1] -> [N]."""
        share: Tensor = torch.special.ndtr(x[:, 0])
        return (share * self.count).floor().long().clamp(0, self.count - 1)


@dataclass(frozen=True)
class _Largest:
    """Cells 0 .. count - 1 as `count` coordinates, the largest of which is the cell."""

    count: int

    @property
    def width(self) -> int:
        """Coordinates."""
        return self.count

    def encode(self, cells: Tensor, secret: SecretStream) -> Tensor:
        """[N] -> [N, count]."""
        drawn = secret.normal64((len(cells), self.count))
        places, rows = drawn.argmax(dim=1), torch.arange(len(cells))
        swapped = drawn.clone()
        swapped[rows, places], swapped[rows, cells] = drawn[rows, cells], drawn[rows, places]
        return swapped

    def decode(self, x: Tensor) -> Tensor:
        """[N, count] -> [N]."""
        return x.argmax(dim=1)


class ColumnCode:
    """One column: an empty cell is one level more where levels have no order, and an indicator before the value else.

    `width` coordinates.
    """

    def __init__(self, column: AnyColumn) -> None:
        self.column = column
        self._own_level = isinstance(column, CategoricalColumn)
        count = column.cells + (column.missing and self._own_level)
        self._value = _Largest(count) if self._own_level and count > 2 else _Grid(count)
        self._empty = _Grid(2) if column.missing and not self._own_level else None
        self.width = self._value.width + (self._empty is not None)

    def encode(self, cells: Tensor, secret: SecretStream) -> Tensor:
        """[N] -> [N, width] float64; what is spread is drawn from `secret`."""
        if self._own_level:
            return self._value.encode(torch.where(cells == MISSING, self.column.cells, cells), secret)
        value = self._value.encode(cells, secret)
        if self._empty is None:
            return value
        return torch.cat([self._empty.encode((cells == MISSING).long(), secret), value], dim=1)

    def decode(self, x: Tensor) -> Tensor:
        """[N, width] -> [N]; total: every vector is some value of the column."""
        if self._own_level:
            found = self._value.decode(x)
            return torch.where(found == self.column.cells, MISSING, found)
        value = self._value.decode(x[:, -self._value.width :])
        return value if self._empty is None else torch.where(self._empty.decode(x) == 1, MISSING, value)


class Coder:
    """Cells [N, C] of the flow's columns <-> vectors [N, D]."""

    def __init__(self, columns: dict[str, AnyColumn]) -> None:
        self._codes = [ColumnCode(column) for column in columns.values()]
        self.width = sum(code.width for code in self._codes)

    def encode(self, cells: Cells, secret: SecretStream) -> Tensor:
        """[N, C] -> [N, D] float64."""
        columns = torch.from_numpy(np.ascontiguousarray(cells.T))
        return torch.cat([code.encode(own, secret) for code, own in zip(self._codes, columns, strict=True)], dim=1)

    def decode(self, x: Tensor) -> Cells:
        """[N, D] -> [N, C]; what is not finite counts as zero."""
        parts = torch.split(torch.nan_to_num(x.double()), [code.width for code in self._codes], dim=1)
        cells = [code.decode(part) for code, part in zip(self._codes, parts, strict=True)]
        return torch.stack(cells, dim=1).numpy()


def text_of(column: AnyColumn, cell: int) -> str:
    """How a cell is written in the CSV; nothing for an empty one."""
    if cell == MISSING:
        return ""
    if isinstance(column, NumericColumn):
        # a zero added: rounding may leave a negative one
        return f"{round(column.low + cell / 10**column.digits, column.digits) + 0.0:.{column.digits}f}"
    return column.levels[cell]
