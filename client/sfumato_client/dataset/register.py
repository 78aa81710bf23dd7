"""What a store keeps of the rows and images it was made of, for the next update: tokens, labels, splits and views.

No name, no identifier, no date and no other value of a header: what is compared is hashed under the site's split key
(`tokens`). Beside what the index holds: the pixels' hash, the modality, and size and time of the files.
"""

from __future__ import annotations

import io
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sfumato_client.dataset.encryption import ALTERED, read_encrypted, write_encrypted
from sfumato_client.dataset.pixel_file import EncryptedPixels
from sfumato_client.dataset.rows import RowsRead
from sfumato_client.dataset.splits import SPLITS
from sfumato_client.dataset.tokens import TOKEN_BYTES
from sfumato_client.ingest import ID_KINDS, Entry, Facts, Split
from sfumato_common.errors import DataError
from sfumato_common.types import AnyArray

REGISTER = "register"
_GIVEN: tuple[Split | None, ...] = (None, *SPLITS)
_HEX = 2 * TOKEN_BYTES


class Register:
    """The register of a store, opened; `pixels` are the store's."""

    def __init__(self, arrays: dict[str, AnyArray], pixels: EncryptedPixels) -> None:
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
        facts = Facts(reference, instance, study, person, "", arrays["modality"][number].decode())
        given, drawn, kind = (int(value) for value in arrays["said"][number])
        return Entry(
            patient,
            int(arrays["labels"][number]),
            _GIVEN[given],
            arrays["view"][number].decode(),
            arrays["digests"][number].tobytes(),
            facts,
            alike=alike,
            kind=ID_KINDS[kind],
            drawn=SPLITS[drawn],
        )


def write_register(folder: Path, entries: Sequence[Entry], kept: Sequence[int], rows: RowsRead, key: bytes) -> str:
    """Write the register of a store of these of `entries`; its id. A row that lost an image is to be read again."""
    place = np.full(len(entries), -1, dtype=np.int64)
    place[np.asarray(kept, dtype=np.int64)] = np.arange(len(kept))
    row_of, used = np.full(len(kept), -1, dtype=np.int64), RowsRead()
    for row in rows:
        there = place[row.first : row.first + row.count]
        there = there[there >= 0]
        if len(there):
            row_of[there] = len(used)
            used.append(row if len(there) == row.count else replace(row, row=""))
    tokens, said = np.zeros((len(kept), 6, TOKEN_BYTES), np.uint8), np.zeros((len(kept), 3), np.uint8)
    view, modality = np.zeros(len(kept), "S16"), np.zeros(len(kept), "S16")
    labels = np.zeros(len(kept), np.int64)
    for number, at in enumerate(kept):
        one = entries[at]
        named = (one.patient_id, one.alike, one.facts.person, one.facts.study, one.facts.instance)
        joined = b"".join(bytes.fromhex(value) or bytes(TOKEN_BYTES) for value in named) + one.digest
        tokens[number] = np.frombuffer(joined, np.uint8).reshape(6, TOKEN_BYTES)
        said[number] = _GIVEN.index(one.split), SPLITS.index(one.drawn), ID_KINDS.index(one.kind)
        view[number], modality[number], labels[number] = one.view, one.facts.modality, one.label
    arrays: dict[str, AnyArray] = {
        "tokens": tokens[:, :5],
        "digests": tokens[:, 5],
        "labels": labels,
        "said": said,
        "view": view,
        "modality": modality,
        "row_of": row_of,
        "abouts": _bytes((row.about for row in used), len(used)),
        "rows": _bytes((row.row for row in used), len(used)),
        "stamps": _stamps(used),
    }
    return write_arrays(folder, REGISTER, arrays, key)


def read_register(folder: Path, register: str, pixels: EncryptedPixels, key: bytes) -> Register:
    """The register of an open store. Raises DataError."""
    return Register(read_arrays(folder, REGISTER, register, key), pixels)


def write_arrays(folder: Path, kind: str, arrays: dict[str, AnyArray], key: bytes) -> str:
    """Write plain arrays as one encrypted file; its id."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return write_encrypted(folder, kind, buffer.getbuffer(), key).hex()


def read_arrays(folder: Path, kind: str, file_id: str, key: bytes) -> dict[str, AnyArray]:
    """The arrays of such a file. Raises DataError."""
    data = read_encrypted(folder, kind, bytes.fromhex(file_id), key)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile):
        raise DataError(ALTERED) from None


def _stamps(rows: RowsRead) -> AnyArray:
    numbers = (number for row in rows for number in (row.size, row.time))
    return np.fromiter(numbers, np.int64, 2 * len(rows)).reshape(len(rows), 2)


def _bytes(tokens: Iterable[str], count: int) -> AnyArray:
    joined = bytearray()
    for token in tokens:
        joined += bytes.fromhex(token) or bytes(TOKEN_BYTES)
    return np.frombuffer(joined, dtype=np.uint8).reshape(count, TOKEN_BYTES)


def _hexes(tokens: AnyArray) -> list[str]:
    """Tokens again; all zeros stand for none."""
    text = tokens.tobytes().hex()
    found = [text[at : at + _HEX] for at in range(0, len(text), _HEX)]
    return ["" if value == "0" * _HEX else value for value in found]
