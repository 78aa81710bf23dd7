"""From a source's rows to the files of a store: what is read, examined whole, and then written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from sfumato_client.dataset.arrays import smallest, words_of, write_arrays
from sfumato_client.dataset.facts import StoreFacts
from sfumato_client.dataset.growing import Growing, Rows, Unchanged
from sfumato_client.dataset.people import People, people_of
from sfumato_client.dataset.pixel_file import PixelFacts, kept_rows
from sfumato_client.dataset.register import Register, write_register
from sfumato_client.dataset.report import IngestReport, report_of, with_names
from sfumato_client.dataset.rows import RowRead
from sfumato_client.dataset.splits import SPLITS, Numbers
from sfumato_client.dataset.tokens import TOKEN_BYTES, alike_token
from sfumato_client.ingest import Answers, Entry, Past, Skipped, Split, examine
from sfumato_common.accounting.members import Members, key_name, pseudonym
from sfumato_common.count_text import count_text
from sfumato_common.errors import ConfigError
from sfumato_common.study.terms import ImageForm
from sfumato_common.types import AnyArray

if TYPE_CHECKING:
    from sfumato_client.dataset.content import Content

INDEX = "index"
# who would be in which cohort, and what the store would hold; refuses by raising
Check: TypeAlias = "Callable[[Callable[[], Members], Content], None]"
_SHORTEST = 16


@dataclass(frozen=True)
class Before:
    """A store that is updated: its register, its patients' tokens, and the split of every identifier's token."""

    register: Register
    patients: Collection[str]
    splits: Mapping[str, Split]


@dataclass(frozen=True)
class StoreTerms:
    """What a store is made for: form and labels of the plan, whose numbers images count in, and the site's two keys.

    `answers` are the hospital's to questions about the whole set. `check` may ask who would be in which cohort, and
    what the store would hold, and refuses by raising. `unchanged` says of a row that was read before a kill whether its
    file is as it was.
    `withdrawn` are identifiers of patients whose images are not taken, `gone` who withdrew before, each by the token of
    an identifier with that of all that are alike; `gone_persons` are those by the token of name and birth date.
    `before` is the store that is updated, `settings` all that the source says of how its rows are read.
    """

    form: ImageForm
    labels: Sequence[str]
    split_key: bytes
    store_key: bytes
    answers: Answers = Answers()  # noqa: RUF009 - frozen
    check: Check = lambda members, content: None
    unchanged: Unchanged = lambda stamp: True
    withdrawn: Sequence[str] = ()
    gone: Mapping[str, str] = field(default_factory=dict)
    gone_persons: Mapping[str, str] = field(default_factory=dict)
    before: Before | None = None
    settings: str = ""

    def __post_init__(self) -> None:
        if len(self.split_key) < _SHORTEST:
            raise ConfigError("the split key is a secret of at least 128 bits; run 'sfumato-site init' anew")


@dataclass(frozen=True)
class Whole:
    """A set that was read and looked at: its pixels' file, the numbers of the entries that are kept, and of whom."""

    pixels: PixelFacts
    entries: Sequence[Entry]
    rows: Sequence[RowRead]
    kept: Numbers
    people: People
    report: IngestReport


def read_whole(folder: Path, rows: Rows, terms: StoreTerms, about: str) -> Whole:
    """Read a source into `folder`, or go on with it, and look at the whole set."""
    keys, before = (terms.split_key, terms.store_key), terms.before
    register = before.register if before else None
    growing = Growing(folder, terms.form, about, keys, terms.unchanged, register, terms.settings)
    for results in rows(growing.rows):
        growing.take(results)
    named = {pseudonym(terms.split_key, name): alike_token(terms.split_key, name) for name in terms.withdrawn}
    withdrawn = {**terms.gone, **named}
    gone = _gone(growing, register, withdrawn) if register else {}
    if terms.answers.gone == "keep":
        growing.keep(list(gone))
    pixels, entries = growing.finish(), growing.entries
    past = Past(before.patients if before else (), withdrawn, terms.gone_persons, list(gone.values()))
    examined = examine(entries, growing.skipped, terms.answers, past)
    left = np.ones(len(entries), bool)
    left[np.fromiter(examined.dropped, np.int64, len(examined.dropped))] = False
    kept = np.flatnonzero(left).astype(np.uint32)
    people = people_of(entries, kept, examined, before.splits if before else None)
    known = {pseudonym(terms.split_key, name): name for name in terms.withdrawn}
    examined.questions = with_names(examined.questions, lambda wanted: known | growing.names(wanted))
    if growing.taken:
        what = count_text(len(growing.taken), "image was", "images were")
        examined.notes.append(f"{what} kept as they were in the store, and not read")
    for at, reason in examined.dropped.items():
        growing.skipped.append(Skipped(entries[at].facts.reference, reason))
    report = report_of(entries, growing.skipped, examined, people)
    return Whole(pixels, entries, growing.read, kept, people, report)


def _gone(growing: Growing, before: Register, withdrawn: Collection[str]) -> dict[int, str]:
    """The images of the store before that no row gave again, with their patient's token; but of who has withdrawn."""
    said = b"".join(bytes.fromhex(row.about) for row in growing.read)
    abouts = np.frombuffer(said, np.uint8).reshape(-1, TOKEN_BYTES)
    gone = ((number, before.entry(number, "").patient_id) for number in before.not_again(abouts, growing.taken))
    return {number: owner for number, owner in gone if owner not in withdrawn}


def write_whole(folder: Path, whole: Whole, terms: StoreTerms) -> StoreFacts:
    """Write the files of a store into `folder`, beside what was read; what `store.json` has to say of them."""
    pixels, key = whole.pixels, terms.store_key
    if len(whole.kept) < len(whole.entries):
        pixels = kept_rows(folder, terms.form, whole.kept, pixels, key)
    index = write_arrays(folder, INDEX, _index(whole), key)
    return facts_of(pixels, terms, index, write_register(folder, whole.entries, whole.kept, whole.rows, key))


def facts_of(pixels: PixelFacts, terms: StoreTerms, index: str = "", register: str = "") -> StoreFacts:
    """What `store.json` says of a store of these files."""
    said = (tuple(terms.labels), pixels.shape, pixels.dtype, key_name(terms.split_key))
    return StoreFacts(*said, pixels.file_id.hex(), index, register)


def _index(whole: Whole) -> dict[str, AnyArray]:
    """Labels, owner, split and view of every image that is kept, and the pseudonyms of its patients."""
    entries, people, count = whole.entries, whole.people, len(whole.kept)
    return {
        "labels": smallest(np.fromiter((entries[int(at)].label for at in whole.kept), np.uint32, count)),
        "owner": people.owner,
        "split": people.splits[people.owner].astype(np.uint8),
        "view": words_of((entries[int(at)].view for at in whole.kept), count),
        "patients": people.tokens,
        # every other identifier of a patient: by each of them a charged patient is known again
        "aliases": people.others,
        "alias_owner": people.of_others,
    }


def spread_index(whole: Whole) -> dict[str, AnyArray]:
    """The index over all images that were read: what is not kept is in no split."""
    kept, rows = _index(whole), len(whole.entries)
    spread = {name: np.zeros(rows, dtype=kept[name].dtype) for name in ("labels", "owner", "view")}
    spread["split"] = np.full(rows, len(SPLITS), dtype=np.uint8)
    for name, values in spread.items():
        values[whole.kept] = kept[name]
    return {**kept, **spread}
