"""What a store keeps of the rows and images it was made of, for the next update: tokens, labels, splits and views.

No name, no identifier, no date and no other value of a header: what is compared is hashed under the site's split key
(`tokens`). Beside what the index holds: the pixels' hash, the modality, and size and time of the files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from struct import pack

import numpy as np

from sfumato_client.dataset.arrays import Column, hexes, read_arrays, smallest, words_of, write_arrays
from sfumato_client.dataset.found import Found, Tokens
from sfumato_client.dataset.pixel_file import EncryptedPixels
from sfumato_client.dataset.rows import RowRead
from sfumato_client.dataset.splits import SPLITS, Numbers
from sfumato_client.dataset.tokens import TOKEN_BYTES
from sfumato_client.ingest import ID_KINDS, Entry, Facts, Split
from sfumato_common.types import AnyArray

REGISTER = "register"
# arrays of rows, and arrays of what some images have alone with the array of whose it is; every other one is of images
BY_ROW, BY_SOME = ("abouts", "rows", "stamps"), {"others": "others_of", "bare": "bare_of"}
_GIVEN: tuple[Split | None, ...] = (None, *SPLITS)


class Register:
    """The register of a store, opened; `pixels` are the store's."""

    def __init__(self, arrays: dict[str, AnyArray], pixels: EncryptedPixels) -> None:
        self._arrays, self.pixels = arrays, pixels
        self._others: dict[int, list[str]] = defaultdict(list)
        if "others" in arrays:  # a store of before has none
            for number, other in zip(arrays["others_of"].tolist(), _hexes(arrays["others"]), strict=True):
                self._others[number].append(other)
        # of most stores nobody, or everybody, has letters before a number
        lettered = arrays["bare_of"].tolist() if "bare" in arrays else []
        self._bare = dict(zip(lettered, _hexes(arrays["bare"]) if lettered else [], strict=True))
        self._rows = Found(arrays["rows"])
        # images by row, in order; those of no row come first
        self._by_row = np.argsort(arrays["row_of"], kind="stable").astype(np.uint32)
        self._begins = np.searchsorted(arrays["row_of"][self._by_row], np.arange(len(arrays["rows"]) + 1))

    def __len__(self) -> int:
        return len(self.pixels)

    def known(self, row: str, size: int, time: int) -> tuple[int, ...]:
        """The numbers of a row's images, where row and file are as they were; else none."""
        at = self._rows.of(row)
        if at is None or tuple(self._arrays["stamps"][at].tolist()) != (size, time):
            return ()
        return tuple(self._by_row[self._begins[at] : self._begins[at + 1]].tolist())

    def not_again(self, abouts: Tokens, taken: Collection[int]) -> list[int]:
        """The numbers of images that were not `taken` and whose rows were not read anew.

        `abouts` [m, 16] are what rows are about of which images were taken: a row counts as read where as many are
        about the same as were then.
        """
        mine = self._arrays["abouts"]
        both, place = np.unique(np.concatenate([mine, abouts]), axis=0, return_inverse=True)
        place = place.reshape(-1)
        then, now = (np.bincount(part, minlength=len(both)) for part in (place[: len(mine)], place[len(mine) :]))
        anew = (now >= then)[place[: len(mine)]]
        again = np.zeros(len(self), bool)
        of_row = self._arrays["row_of"]
        again[of_row >= 0] = anew[of_row[of_row >= 0]]
        again[np.fromiter(taken, np.int64, len(taken))] = True
        return [int(number) for number in np.flatnonzero(~again)]

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
            bare=self._bare.get(number, ""),
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
    lettered = np.array([at for at, one in enumerate(each()) if one.bare], np.uint32)
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
        "bare": Column(len(lettered), (TOKEN_BYTES,), token, lambda: (_token(one.bare) for one in each() if one.bare)),
        "bare_of": lettered,
        "row_of": row_of,
        "abouts": Column(count, (TOKEN_BYTES,), token, lambda: (_token(row.about) for row in used())),
        "rows": Column(count, (TOKEN_BYTES,), token, lambda: (_token(row.row) for row in used())),
        "stamps": Column(count, (2,), np.dtype("<i8"), lambda: (pack("<qq", row.size, row.time) for row in used())),
    }
    apart = {*BY_ROW, *BY_SOME, *BY_SOME.values()}
    lengths = {name: one.count if isinstance(one, Column) else len(one) for name, one in arrays.items()}
    assert all(length == len(kept) for name, length in lengths.items() if name not in apart)
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
