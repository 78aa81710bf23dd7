"""The picture that every case holds: no turn, mirror, inversion, shift or clip of it looks like another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

SIDE = 32
Display = npt.NDArray[np.float64]


class Make(Protocol):
    """Writes the case's file or files."""

    def __call__(self, place: Path) -> Any: ...


@dataclass(frozen=True)
class Case:
    """One input: its name (the kind first), what writes it, and the display values or the words that it must give."""

    name: str
    make: Make
    expected: Display | str
    terms: dict[str, Any]
    tolerance: float = 1.5


def truth() -> Display:
    """Display values 0..1, [S, S]: darker to the left than to the right, and a mark in one corner only."""
    down, across = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1)
    shown = 0.15 + 0.5 * across + 0.2 * down**2
    shown[2:9, 3:7] = 1.0
    shown[20:28, 2:6] = 0.0
    return shown


def stored(bits: int, *, signed: bool = False) -> npt.NDArray[Any]:
    """`truth` in so many bits, from 0 or from the lowest signed number on."""
    values = np.rint(truth() * (2**bits - 1)).astype(np.int64) - (2 ** (bits - 1) if signed else 0)
    return values.astype(("i" if signed else "u") + ("1" if bits <= 8 else "2"))
