"""Lookup tables of DICOM: Modality LUT (PS3.3 C.11.1.1), VOI LUT (C.11.2.1.1) and palettes (C.7.9).

Descriptors lie in the field: they promise 16 bits of tables that hold 12, or 8. So a table's brightest value is taken
from its data, as the next power of two, and where that is not what the descriptor says it is noted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from sfumato_common.dicom.elements import Note, named, numbers
from sfumato_common.dicom.unreadable import UnreadableError
from sfumato_common.types import AnyArray

_FEWEST_BITS = 6
_SMOOTHER = 0.25  # the steps of a table in order, of those of one whose bytes are swapped


@dataclass(frozen=True)
class Lookup:
    """A table: `entries` [L] for values from `first` on; `top` is what shows white."""

    first: int
    entries: npt.NDArray[np.int64]
    top: int

    def of(self, values: AnyArray) -> npt.NDArray[np.int64]:
        """Entries of `values`; those below or above the table get its first or last entry."""
        places = np.rint(values).astype(np.int64) - self.first
        return np.asarray(self.entries[np.clip(places, 0, len(self.entries) - 1)])


def read_lookup(
    holder: Dataset, signed: bool, note: Note, data: str = "LUTData", descriptor: str = "LUTDescriptor"
) -> Lookup | None:
    """The table that `holder` describes, or None for one without data. `signed` says what its first value counts in.

    Raises UnreadableError where descriptor and data do not fit together.
    """
    terms = [0 if value is None else int(value) for value in numbers(holder, descriptor)]
    entries = _entries(holder, data)
    if not terms or not len(entries):
        return None
    if len(terms) < 3:
        raise UnreadableError(f"its {named(descriptor)} does not have three values")
    count, first, bits = terms[0] or 2**16, terms[1], terms[2]
    if isinstance(entries, bytes):
        entries = _from_bytes(entries, count, "<u2" if holder.original_encoding[1] is not False else ">u2")
    if len(entries) < 2:
        raise UnreadableError(f"its {named(data)} has fewer than two entries")
    entries = _in_order(entries[:count], note, named(data))
    # an unsigned representation may hold a negative first value
    first -= 2**16 if signed and first >= 2**15 else 0
    return Lookup(first, entries, top_of(entries, bits, note, named(descriptor)))


def _in_order(entries: npt.NDArray[np.int64], note: Note, what: str) -> npt.NDArray[np.int64]:
    """Entries whose bytes are swapped, put right: a table is smooth, and one in the wrong order jumps at every step."""
    if entries.min() < 0 or entries.max() >= 2**16 or not (entries & 0xFF).any():
        return entries
    swapped = entries.astype(np.uint16).byteswap().astype(np.int64)
    if np.abs(np.diff(swapped)).sum() > _SMOOTHER * np.abs(np.diff(entries)).sum():
        return entries
    note(f"the bytes of its {what} are swapped: put right")
    return swapped


def top_of(entries: npt.NDArray[np.int64], bits: int, note: Note, what: str) -> int:
    """The value that shows white: of as many bits as the data need."""
    needed = max(int(entries.max()).bit_length(), min(bits, _FEWEST_BITS))
    if needed != bits:
        note(f"its {what} says {bits} bits, and the data have {needed}: shown by the data")
    return int(2**needed - 1)


def _entries(holder: Dataset, data: str) -> Any:
    try:
        value = holder.get(data)
    except Exception:  # a value of another length than its representation has
        raise UnreadableError(f"its {named(data)} cannot be read") from None
    if value is None or isinstance(value, bytes):
        return value or b""
    return np.atleast_1d(np.asarray(value, dtype=np.int64))


def _from_bytes(value: bytes, count: int, words: str) -> npt.NDArray[np.int64]:
    """Words, or bytes where there are no more bytes than entries (PS3.3 C.11.1.1.1, C.7.6.3.1.6)."""
    if len(value) <= count + 1 and count > 1:
        return np.frombuffer(value, np.uint8).astype(np.int64)
    return np.frombuffer(value[: len(value) // 2 * 2], words).astype(np.int64)
