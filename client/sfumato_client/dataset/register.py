"""What a store keeps of the rows and images it was made of, for the next update: tokens, labels, splits and views.

No name, no identifier, no date and no other value of a header: what is compared is hashed under the site's split key
(`tokens`). Beside what the index holds: the pixels' hash, the modality, and size and time of the files.
"""

from __future__ import annotations

import io
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sfumato_client.dataset.pixel_file import SealedPixels
from sfumato_client.dataset.sealing import ALTERED, read_sealed, write_sealed
from sfumato_client.dataset.splits import SPLITS
from sfumato_client.ingest import ID_KINDS, Entry, Facts, Split
from sfumato_common.errors import DataError
from sfumato_common.types import AnyArray

REGISTER = "register"
_GIVEN: tuple[Split | None, ...] = (None, *SPLITS)
_HEX = 32


@dataclass(frozen=True, slots=True)
class RowRead:
    """A row of which images were taken: tokens of what it is about and of all it says, its file's state, their numbers.

    `row` is empty where the row has to be read again.
    """

    about: str
    row: str
    size: int
    time: int
    images: tuple[int, ...]


class Register:
    """The register of a store, opened; `pixels` are the store's."""

    def __init__(self, arrays: dict[str, AnyArray], pixels: SealedPixels) -> None:
        self._arrays, self.pixels = arrays, pixels
        images: dict[int, list[int]] = defaultdict(list)
        for number, row in enumerate(arrays["row_of"].tolist()):
            images[row].append(number)
        self.abouts, self._rows = _hexes(arrays["abouts"]), dict[str, tuple[int, int, tuple[int, ...]]]()
        self.images = [tuple(images[row]) for row in range(len(self.abouts))]
        stamps = arrays["stamps"].tolist()
        for at, row in enumerate(_hexes(arrays["rows"])):
            if row:
                self._rows[row] = (*stamps[at], self.images[at])

    def __len__(self) -> int:
        return len(self.pixels)

    def known(self, row: str, size: int, time: int) -> tuple[int, ...]:
        """The numbers of a row's images, where row and file are as they were; else none."""
        found = self._rows.get(row)
        return found[2] if found is not None and found[:2] == (size, time) else ()

    def entry(self, number: int, reference: str) -> Entry:
        """What is known of an image. Raises IndexError for a number that is none."""
        arrays = self._arrays
        patient, alike, person, study, instance = _hexes(arrays["tokens"][number])
        facts = Facts(reference, instance, study, person, "", str(arrays["modality"][number]))
        given, drawn, kind = (int(value) for value in arrays["said"][number])
        return Entry(
            patient,
            int(arrays["labels"][number]),
            _GIVEN[given],
            str(arrays["view"][number]),
            arrays["digests"][number].tobytes(),
            facts,
            alike=alike,
            kind=ID_KINDS[kind],
            drawn=SPLITS[drawn],
        )


def write_register(
    folder: Path, entries: Sequence[Entry], kept: Sequence[int], rows: Sequence[RowRead], key: bytes
) -> str:
    """Write the register of a store of these of `entries`; its id. A row that lost an image is to be read again."""
    chosen, place = [entries[at] for at in kept], {at: number for number, at in enumerate(kept)}
    row_of = np.full(len(kept), -1, dtype=np.int64)
    used = list[RowRead]()
    for row in rows:
        there = [place[at] for at in row.images if at in place]
        if there:
            row_of[there] = len(used)
            used.append(row if len(there) == len(row.images) else replace(row, row=""))
    named = ([one.patient_id, one.alike, one.facts.person, one.facts.study, one.facts.instance] for one in chosen)
    arrays: dict[str, AnyArray] = {
        "tokens": _bytes((value for five in named for value in five), (len(chosen), 5)),
        "digests": np.frombuffer(b"".join(one.digest for one in chosen), np.uint8).reshape(len(chosen), -1),
        "labels": np.array([one.label for one in chosen], dtype=np.int64),
        "said": np.array(
            [[_GIVEN.index(one.split), SPLITS.index(one.drawn), ID_KINDS.index(one.kind)] for one in chosen], np.uint8
        ).reshape(len(chosen), 3),
        "view": np.array([one.view for one in chosen], dtype="U16"),
        "modality": np.array([one.facts.modality for one in chosen], dtype="U16"),
        "row_of": row_of,
        "abouts": _bytes((row.about for row in used), (len(used),)),
        "rows": _bytes((row.row for row in used), (len(used),)),
        "stamps": np.array([[row.size, row.time] for row in used], dtype=np.int64).reshape(len(used), 2),
    }
    return write_arrays(folder, REGISTER, arrays, key)


def read_register(folder: Path, register: str, pixels: SealedPixels, key: bytes) -> Register:
    """The register of an open store. Raises DataError."""
    return Register(read_arrays(folder, REGISTER, register, key), pixels)


def write_arrays(folder: Path, kind: str, arrays: dict[str, AnyArray], key: bytes) -> str:
    """Write plain arrays as one sealed file; its id."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return write_sealed(folder, kind, buffer.getvalue(), key).hex()


def read_arrays(folder: Path, kind: str, file_id: str, key: bytes) -> dict[str, AnyArray]:
    """The arrays of such a file. Raises DataError."""
    data = read_sealed(folder, kind, bytes.fromhex(file_id), key)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile):
        raise DataError(ALTERED) from None


def _bytes(values: Iterable[str], shape: tuple[int, ...]) -> AnyArray:
    joined = b"".join(bytes.fromhex(value or "0" * _HEX) for value in values)
    return np.frombuffer(joined, dtype=np.uint8).reshape(*shape, _HEX // 2)


def _hexes(tokens: AnyArray) -> list[str]:
    """Tokens again; all zeros stand for none."""
    text = tokens.tobytes().hex()
    found = [text[at : at + _HEX] for at in range(0, len(text), _HEX)]
    return ["" if value == "0" * _HEX else value for value in found]
