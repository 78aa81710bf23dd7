"""The site's store: one folder, made whole or not at all, that holds encrypted pixels and an index without names.

`pixels-ID` [N, S, S(, 3)] is opened image by image; `index-ID` has labels, split, owner and view of every image and the
patients' pseudonyms; `register-ID` what the next update compares with; `store.json`, written last, says which files
these are, and which label every number stands for. All are encrypted or authenticated under a key that lies elsewhere.
File names and patient ids are in none of them: only the local ingest report beside the store names files.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np

from sfumato_client.dataset.arrays import hexes, read_arrays, tokens_of
from sfumato_client.dataset.cohort import Cohort
from sfumato_client.dataset.content import Content
from sfumato_client.dataset.encryption import ALTERED, file_name
from sfumato_client.dataset.facts import FACTS, StoreFacts
from sfumato_client.dataset.filling import (
    INDEX,
    Before,
    Check,
    StoreTerms,
    facts_of,
    read_whole,
    spread_index,
    write_whole,
)
from sfumato_client.dataset.found import Found, SplitOf
from sfumato_client.dataset.growing import Rows
from sfumato_client.dataset.looking import sheet_of, unusual
from sfumato_client.dataset.newest import placing
from sfumato_client.dataset.pixel_file import PIXELS, EncryptedPixels
from sfumato_client.dataset.register import REGISTER, read_register
from sfumato_client.dataset.report import REPORT, IngestReport
from sfumato_client.dataset.splits import NOT_GIVEN, SPLITS
from sfumato_client.ingest import Answers, SiteImage, Skipped, Split
from sfumato_common.accounting.members import Members
from sfumato_common.errors import DataError
from sfumato_common.files import sync_folder
from sfumato_common.study.terms import ImageForm
from sfumato_common.types import AnyArray

# in which nothing is charged; refuses who would be in which cohort
Hold = Callable[[Members], AbstractContextManager[None]]


class SiteStore:
    """An opened store; read-only."""

    def __init__(self, pixels: EncryptedPixels, index: dict[str, AnyArray], facts: StoreFacts) -> None:
        self._pixels = pixels
        self._index = index
        self.facts = facts

    @staticmethod
    def create(
        folder: Path,
        images: Iterable[SiteImage | Skipped],
        form: ImageForm,
        labels: Sequence[str],
        split_key: bytes,
        store_key: bytes,
        check: Check = lambda members, content: None,
        answers: Answers | None = None,
    ) -> IngestReport:
        """`grow` of readers' output that begins anew whenever it is interrupted."""
        terms = StoreTerms(form, labels, split_key, store_key, answers or Answers(), check)
        return SiteStore.grow(folder, lambda start: ([one] for one in images), terms)

    @staticmethod
    def grow(folder: Path, rows: Rows, terms: StoreTerms, about: str = "") -> IngestReport:
        """Write a store from the results of a source's rows, and the report beside it.

        The folder appears by one rename after everything in it was flushed to disk. What was read stays beside it until
        then: with the same `about` an ingest goes on where it was killed, or where it had to ask (the caller holds the
        site's lock). Raises DataError when a store already stands there (changing a cohort under the ledger is not this
        function's to decide), no image could be read, or a person has to answer first.
        """
        if folder.exists():
            raise DataError(
                f"a store already stands at '{folder.name}'; use it, change it by '--update', or remove it "
                "to ingest anew"
            )
        partial = partial_of(folder)
        try:
            whole = read_whole(partial, rows, terms, about)
            whole.report.write(folder.parent / REPORT)
            whole.report.require_answers()
            facts = write_whole(partial, whole, terms)
            mark = facts.write(partial, terms.store_key)
            opened = SiteStore.open(partial, terms.store_key)
            terms.check(lambda: opened.members(*SPLITS), Content(partial, terms.store_key, terms.split_key))
            remove_others(partial, facts)
            sync_folder(partial)
            with placing(folder, mark, "", terms.store_key):
                partial.rename(folder)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise DataError(f"store '{folder.name}' cannot be written ({error.strerror}); nothing was kept") from None
        except BaseException:
            if not about:
                shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_folder(folder.parent)
        return whole.report

    @staticmethod
    def update(folder: Path, rows: Rows, terms: StoreTerms, about: str, hold: Hold) -> IngestReport:
        """Put another version in the place of the store that `terms.before` is of; all of it, or nothing.

        The new files lie beside the old ones before one rename of `store.json` says that they are the store. `hold` is
        given who is in which cohort, refuses by raising, and lets nothing be charged meanwhile. Raises DataError as
        `grow` does.
        """
        partial, key = partial_of(folder), terms.store_key
        remove_others(folder, before := StoreFacts.read(folder, key))
        try:
            whole = read_whole(partial, rows, terms, about)
            whole.report.write(folder.parent / REPORT)
            whole.report.require_answers()
            facts = write_whole(partial, whole, terms)
            put_in_place(folder, facts, before, key, hold)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise DataError(f"store '{folder.name}' cannot be written ({error.strerror}); it is as it was") from None
        remove_others(folder, facts)
        shutil.rmtree(partial, ignore_errors=True)
        return whole.report

    @staticmethod
    def look(folder: Path, rows: Rows, terms: StoreTerms, about: str) -> tuple[IngestReport, bytes, SiteStore]:
        """The report of what `grow` would store, a sheet of images to look at, and the store as it would be.

        What was read stays for `grow`.
        """
        whole = read_whole(partial_of(folder), rows, terms, about)
        report, entries = whole.report, whole.entries
        pixels = EncryptedPixels(partial_of(folder), whole.pixels, terms.store_key)
        sheet, count = sheet_of(pixels, found := unusual(pixels, entries))
        said = f"its first {count} images are unlike others of their device" if found else "no image is unlike others"
        report = replace(report, sheet=said, unusual=tuple(entries[at].facts.reference for at in found))
        report.write(folder.parent / REPORT)
        return report, sheet, SiteStore(pixels, spread_index(whole), facts_of(whole.pixels, terms))

    @staticmethod
    def open(folder: Path, store_key: bytes) -> SiteStore:
        """Open a store. Raises DataError when it is missing, altered, of another key, or does not fit together."""
        facts = StoreFacts.read(folder, store_key)
        pixels = EncryptedPixels(folder, facts.of_pixels, store_key)
        index = read_arrays(folder, INDEX, facts.index, store_key)
        if {len(index[name]) for name in ("labels", "split", "owner", "view")} != {len(pixels)}:
            raise DataError(ALTERED)
        return SiteStore(pixels, index, facts)

    def before(self, folder: Path, store_key: bytes) -> Before:
        """What an update of this store, which was opened at `folder`, has to know of it."""
        register = read_register(folder, self.facts.register, self._pixels, store_key)
        owners, splits = self._index["owner"], self._index["split"]
        patients, aliases = (tokens_of(self._index[name]) for name in ("patients", "aliases"))
        of_owner = np.full(len(patients), NOT_GIVEN, np.uint8)
        of_owner[owners] = splits
        everyone = np.concatenate([patients, aliases])
        found = SplitOf(everyone, np.concatenate([of_owner, of_owner[self._index["alias_owner"]]]))
        return Before(register, Found(patients), found)

    @property
    def patients(self) -> int:
        """Number of patients over all splits (exact: never leaves the site)."""
        return len(self._index["patients"])

    def members(self, *splits: Split) -> Members:
        """The patients of these splits, by the pseudonyms of all identifiers that they have."""
        found = {}
        for split in splits:
            owners = np.unique(self._index["owner"][self._index["split"] == SPLITS.index(split)])
            mine = np.isin(self._index["alias_owner"], owners)
            names = [*hexes(self._index["patients"][owners]), *hexes(self._index["aliases"][mine])]
            found[split] = frozenset(names)
        return Members(self.facts.key, **found)

    def cohort(self, split: Split) -> Cohort:
        """The patients of one split, renumbered from 0; pixels stay on disk until they are asked for."""
        rows = np.flatnonzero(self._index["split"] == SPLITS.index(split)).astype(np.int64)
        _, patient_index = np.unique(self._index["owner"][rows], return_inverse=True)
        patients, views = patient_index.astype(np.int64), self._index["view"][rows].astype("U16")
        return Cohort(self._pixels, self._index["labels"][rows].astype(np.int64), patients, rows, views)


def partial_of(folder: Path) -> Path:
    """Where the store at `folder` grows."""
    return folder.parent / f".{folder.name}.partial"


def put_in_place(
    folder: Path,
    made: StoreFacts,
    before: StoreFacts,
    store_key: bytes,
    hold: Hold,
    tell: Callable[[], None] = lambda: None,
) -> None:
    """Let the store that grew as `made` take the place of that of `before`, all at once; the old files stay.

    `hold` is given who is in which cohort, refuses by raising, and lets nothing be charged meanwhile; within it `tell`
    is called before the new store counts.
    """
    partial = partial_of(folder)
    mark = made.write(partial, store_key)
    with hold(SiteStore.open(partial, store_key).members(*SPLITS)):
        tell()
        for name in _files(made):
            (partial / name).rename(folder / name)
        sync_folder(folder)
        with placing(folder, mark, before.mark, store_key):
            made.write(folder, store_key)


def remove_others(folder: Path, facts: StoreFacts) -> None:
    """Leave only the files of one store."""
    names = {FACTS, *_files(facts)}
    for path in folder.iterdir():
        if path.name not in names:
            path.unlink()


def _files(facts: StoreFacts) -> list[str]:
    ids = ((PIXELS, facts.pixels), (INDEX, facts.index), (REGISTER, facts.register))
    return [file_name(kind, bytes.fromhex(file_id)) for kind, file_id in ids]
