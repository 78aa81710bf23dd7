"""Who the patients of a set are, and in which split, in columns of numbers and tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sfumato_client.dataset.found import Found, Tokens
from sfumato_client.dataset.splits import NOT_GIVEN, SPLITS, Numbers, assign_splits
from sfumato_client.dataset.tokens import TOKEN_BYTES
from sfumato_client.ingest import Entry, Examined, Split


@dataclass(frozen=True)
class People:
    """`tokens` [P, 16] of patients by their number, in the order of their first image; `splits` [P], `owner` [n].

    Images are those that are kept, in their order. `others` [A, 16] are more identifiers of patients `of_others` [A].
    """

    tokens: Tokens
    splits: Numbers
    owner: Numbers
    others: Tokens
    of_others: Numbers

    def count(self, split: Split) -> int:
        """How many patients are in a split."""
        return int((self.splits == SPLITS.index(split)).sum())


def people_of(
    entries: Sequence[Entry], kept: Numbers, examined: Examined, before: Mapping[str, Split] | None = None
) -> People:
    """The patients of the entries of numbers `kept`; who is in `before` keeps that split. Raises DataError."""
    named, given = np.empty((len(kept), TOKEN_BYTES), np.uint8), np.empty(len(kept), np.uint8)
    drawn_of = np.empty(len(kept), np.uint8)  # of the identifier by which the patient is called, of others none
    for place, at in enumerate(kept):
        entry = entries[int(at)]
        patient = examined.patient(entry)
        named[place] = np.frombuffer(bytes.fromhex(patient), np.uint8)
        given[place] = NOT_GIVEN if entry.split is None else SPLITS.index(entry.split)
        drawn_of[place] = SPLITS.index(entry.drawn) if entry.patient_id == patient else NOT_GIVEN
    owner, tokens = _numbered(named)
    del named
    drawn = np.full(len(tokens), NOT_GIVEN, np.uint8)
    told = drawn_of != NOT_GIVEN
    drawn[owner[told]] = drawn_of[told]
    others = _others(entries, examined, Found(tokens), drawn)
    for number in range(len(tokens) if before else 0):
        if (split := before.get(tokens[number].tobytes().hex()) if before else None) is not None:
            drawn[number] = SPLITS.index(split)
    extra = np.frombuffer(b"".join(map(bytes.fromhex, others)), np.uint8).reshape(-1, TOKEN_BYTES)
    of_others = np.fromiter(others.values(), np.uint32, len(others))
    return People(tokens, assign_splits(owner, given, drawn), owner, extra, of_others)


def _numbered(named: Tokens) -> tuple[Numbers, Tokens]:
    """(the number of each row's token, the tokens by number): numbered as they first come."""
    words = named.view(np.uint64)
    order = np.lexsort((words[:, 1], words[:, 0])).astype(np.uint32)  # stable: the first of equal rows comes first
    begins = np.ones(len(order), bool)
    begins[1:] = (words[order[1:]] != words[order[:-1]]).any(axis=1)
    firsts = order[begins]
    rank = np.empty(len(firsts), np.uint32)
    rank[np.argsort(firsts)] = np.arange(len(firsts), dtype=np.uint32)
    owner = np.empty(len(order), np.uint32)
    owner[order] = rank[np.cumsum(begins, dtype=np.uint32) - 1]
    return owner, named[np.sort(firsts)]


def _others(entries: Sequence[Entry], examined: Examined, numbers: Found, drawn: Numbers) -> dict[str, int]:
    """Identifiers by which patients are not called, with their numbers; and into `drawn` what no kept image told."""
    found, missing = dict[str, int](), set(np.flatnonzero(drawn == NOT_GIVEN).tolist())
    for entry in entries if examined.unions or missing else ():
        patient = examined.patient(entry)
        same = entry.patient_id == patient
        if (same and not missing) or (number := numbers.of(patient)) is None:
            continue
        if not same:
            found[entry.patient_id] = number
        elif number in missing:
            drawn[number] = SPLITS.index(entry.drawn)
            missing.remove(number)
    return found
