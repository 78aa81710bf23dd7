"""What a store keeps of the rows and images it was made of, for the next update: tokens, labels, splits and views.

No name, no identifier, no date and no other value of a header: what is compared is hashed under the site's split key
(`tokens`). Beside what the index holds: the pixels' hash, the modality, and size and time of the files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from struct import pack

import numpy as np

from sfumato_client.dataset.arrays import Column, hexes, read_arrays, smallest, words_of, write_arrays
from sfumato_client.dataset.pixel_file import EncryptedPixels
from sfumato_client.dataset.rows import RowRead
from sfumato_client.dataset.splits import SPLITS, Numbers
from sfumato_client.dataset.tokens import TOKEN_BYTES
from sfumato_client.ingest import ID_KINDS, Entry, Facts, Split
from sfumato_common.types import AnyArray

REGISTER = "register"
_GIVEN: tuple[Split | None, ...] = (None, *SPLITS)


class Register:
    """The register of a store, opened; `pixels` are the store's."""

    def __init__(self, arrays: dict[str, AnyArray], pixels: EncryptedPixels) -> None:
        self._arrays, self.pixels = arrays, pixels
        self._others: dict[int, list[str]] = defaultdict(list)
        if "others" in arrays:  # a store of before has none
            for number, other in zip(arrays["others_of"].tolist(), _hexes(arrays["others"]), strict=True):
                self._others[number].append(other)
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
        modality, others = arrays["modality"][number].decode(), " ".join(self._others.get(number, ()))
        facts = Facts(reference, instance, study, person, "", modality, others)
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


def write_register(folder: Path, entries: Sequence[Entry], kept: Numbers, rows: Sequence[RowRead], key: bytes) -> str:
    """Write the register of a store of the entries of numbers `kept`; its id.

    A row that lost an image is to be read again.
    """
    place = np.full(len(entries), -1, dtype=np.int32)
    place[kept] = np.arange(len(kept), dtype=np.int32)

    def each() -> Iterator[Entry]:
        return (entries[int(at)] for at in kept)

    def used() -> Iterator[RowRead]:
        for row in rows:
            there = int((place[row.first : row.first + row.count] >= 0).sum())
            if there:
                yield row if there == row.count else replace(row, row="")

    row_of, count = np.full(len(kept), -1, dtype=np.int32), 0
    for row in used():
        there = place[row.first : row.first + row.count]
        row_of[there[there >= 0]] = count
        count += 1
    labels, said = np.zeros(len(kept), np.uint32), np.zeros((len(kept), 3), np.uint8)
    for number, one in enumerate(each()):
        said[number] = _GIVEN.index(one.split), SPLITS.index(one.drawn), ID_KINDS.index(one.kind)
        labels[number] = one.label
    others = [(at, other) for at, one in enumerate(each()) for other in one.facts.others.split()]
    token = np.dtype(np.uint8)
    arrays: dict[str, AnyArray | Column] = {
        "tokens": Column(len(kept), (5, TOKEN_BYTES), token, lambda: map(_named, each())),
        "digests": Column(len(kept), (TOKEN_BYTES,), token, lambda: (one.digest for one in each())),
        "labels": smallest(labels),
        "said": said,
        "view": words_of((one.view for one in each()), len(kept)),
        "modality": words_of((one.facts.modality for one in each()), len(kept)),
        "others": Column(len(others), (TOKEN_BYTES,), token, lambda: (_token(other) for _, other in others)),
        "others_of": np.array([number for number, _ in others], np.uint32),
        "row_of": row_of,
        "abouts": Column(count, (TOKEN_BYTES,), token, lambda: (_token(row.about) for row in used())),
        "rows": Column(count, (TOKEN_BYTES,), token, lambda: (_token(row.row) for row in used())),
        "stamps": Column(count, (2,), np.dtype("<i8"), lambda: (pack("<qq", row.size, row.time) for row in used())),
    }
    return write_arrays(folder, REGISTER, arrays, key)


def read_register(folder: Path, register: str, pixels: EncryptedPixels, key: bytes) -> Register:
    """The register of an open store. Raises DataError."""
    return Register(read_arrays(folder, REGISTER, register, key), pixels)


def _named(entry: Entry) -> bytes:
    """What names an image's patient, as tokens."""
    facts = entry.facts
    return b"".join(map(_token, (entry.patient_id, entry.alike, facts.person, facts.study, facts.instance)))


def _token(value: str) -> bytes:
    return bytes.fromhex(value) or bytes(TOKEN_BYTES)


def _hexes(tokens: AnyArray) -> list[str]:
    """Tokens [..., 16] again; all zeros stand for none."""
    return [value if value.strip("0") else "" for value in hexes(tokens.reshape(-1, TOKEN_BYTES))]
