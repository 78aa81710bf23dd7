"""The site's store: one folder, made whole or not at all, that holds pixels and an index without names.

`pixels.npy` [N, S, S(, 3)] is memory-mapped; `index.npz` has labels, split, owner and view of every image and the
patients' pseudonyms; `store.json`, written last, says what the other two must be, and which label every number stands
for. File names and patient ids are in none of them: only the local ingest report beside the store names files.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sfumato_client.dataset.cohort import Cohort
from sfumato_client.dataset.growing import JOURNAL, Growing, Rows
from sfumato_client.dataset.looking import sheet_of, unusual
from sfumato_client.dataset.pixel_file import keep_rows
from sfumato_client.dataset.report import REPORT, IngestReport, report_of
from sfumato_client.dataset.splits import SPLITS, assign_splits, key_name, pseudonym
from sfumato_client.ingest import Answers, Entry, SiteImage, Skipped, Split, examine
from sfumato_common.accounting.members import Members
from sfumato_common.errors import ConfigError, DataError
from sfumato_common.files import sync_folder, write_atomic, write_json
from sfumato_common.study.terms import ImageForm
from sfumato_common.types import AnyArray, pixel_dtype

_FORMAT = 2


@dataclass(frozen=True)
class StoreFacts:
    """What was ingested, from `store.json` alone and hence from the plan that it was ingested for, never from pixels.

    `labels` are names in the order of the stored numbers; `shape` [N, S, S(, 3)] and `dtype` are those of the pixels;
    `key` names the split key (`splits.key_name`).
    """

    labels: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    key: str

    @staticmethod
    def read(folder: Path) -> StoreFacts:
        """The facts of the store at `folder`; no image and no patient is looked at. Raises DataError."""
        try:
            value = json.loads((folder / "store.json").read_text())
            labels, shape = tuple(map(str, value["labels"])), tuple(map(int, value["shape"]))
            facts = StoreFacts(labels, shape, str(value["dtype"]), str(value["key"]))
            known = value["format"] == _FORMAT
        except (OSError, ValueError, KeyError, TypeError):
            known = False
        if not known:
            raise DataError(f"store '{folder.name}' is missing, incomplete or of another version; ingest again")
        return facts

    def require(self, form: ImageForm, labels: Sequence[str]) -> None:
        """Raises DataError unless the store was ingested for this very form and these labels, in their order.

        A number in the store means a label of the plan that it was ingested for, and nothing under another plan.
        """
        if self.shape[1:] != form.shape or self.dtype != str(np.dtype(pixel_dtype(form.bits))):
            raise DataError(
                f"the store holds images of another form than the plan's {form.size} x {form.size}, {form.channels} "
                f"channel(s), {form.bits} bits; ingest again for this plan"
            )
        if self.labels != tuple(labels):
            raise DataError(
                "the store was ingested under labels of other names, order or number than the plan's; ingest again for "
                "this plan"
            )


@dataclass(frozen=True)
class StoreTerms:
    """What a store is made for: form and labels of the plan, whose numbers images count in, and the split key.

    `answers` are the hospital's to questions about the whole set. `check` is shown who would be in which cohort, and
    refuses by raising.
    """

    form: ImageForm
    labels: Sequence[str]
    split_key: bytes
    answers: Answers = Answers()  # noqa: RUF009 - frozen
    check: Callable[[Members], None] = lambda members: None


class SiteStore:
    """An opened store; read-only."""

    def __init__(self, pixels: AnyArray, index: dict[str, AnyArray], facts: StoreFacts) -> None:
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
        check: Callable[[Members], None] = lambda members: None,
        answers: Answers | None = None,
    ) -> IngestReport:
        """`grow` of readers' output that begins anew whenever it is interrupted."""
        terms = StoreTerms(form, labels, split_key, answers or Answers(), check)
        return SiteStore.grow(folder, lambda start: ([one] for one in images), terms)

    @staticmethod
    def grow(folder: Path, rows: Rows, terms: StoreTerms, about: str = "") -> IngestReport:
        """Write a store from the results of a source's rows, and the report beside it.

        The folder appears by one rename after everything in it was flushed to disk. What was read stays beside it until
        then: with the same `about` an ingest goes on where it was killed, or where it had to ask (the caller holds the
        site's lock). Raises DataError when a store already stands there (changing a cohort under the ledger is not this
        function's to decide), no image could be read, or a person has to answer first.
        """
        if len(terms.split_key) < 16:
            raise ConfigError("the split key is a secret of at least 128 bits; run 'sfumato-site init' anew")
        if folder.exists():
            raise DataError(f"a store already stands at '{folder.name}'; use it, or remove it to ingest anew")
        partial = _partial(folder)
        try:
            report = _fill(partial, rows, terms, about)
            report.write(folder.parent / REPORT)
            report.require_answers()
            terms.check(SiteStore.open(partial).members(*SPLITS))
            (partial / JOURNAL).unlink()
            sync_folder(partial)
            partial.rename(folder)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise DataError(f"store '{folder.name}' cannot be written ({error.strerror}); nothing was kept") from None
        except BaseException:
            if not about:
                shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_folder(folder.parent)
        return report

    @staticmethod
    def look(folder: Path, rows: Rows, terms: StoreTerms, about: str) -> tuple[IngestReport, bytes, SiteStore]:
        """The report of what `grow` would store, a sheet of images to look at, and the store as it would be.

        What was read stays for `grow`.
        """
        whole = _read(_partial(folder), rows, terms, about)
        report, entries = whole.report, whole.entries
        pixels = np.load(_partial(folder) / "pixels.npy", mmap_mode="r", allow_pickle=False)
        sheet, count = sheet_of(pixels, found := unusual(pixels, entries))
        said = f"its first {count} images are unlike others of their device" if found else "no image is unlike others"
        report = replace(report, sheet=said, unusual=tuple(entries[at].facts.reference for at in found))
        report.write(folder.parent / REPORT)
        return report, sheet, SiteStore(pixels, _spread_index(whole, terms, len(entries)), _facts(whole.facts, terms))

    @staticmethod
    def open(folder: Path) -> SiteStore:
        """Open a store. Raises DataError when it is missing, incomplete or does not fit together."""
        facts = StoreFacts.read(folder)
        try:
            pixels = np.load(folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
            with np.load(folder / "index.npz", allow_pickle=False) as archive:
                index = {name: archive[name] for name in ("labels", "split", "owner", "patients")}
                # stores from before views were kept know nothing of them
                index["view"] = archive["view"] if "view" in archive.files else np.full(len(index["labels"]), "")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            raise DataError(f"store '{folder.name}' is missing or incomplete; ingest again") from None
        whole = (facts.shape, facts.dtype) == (pixels.shape, str(pixels.dtype))
        if not whole or {len(index[name]) for name in ("labels", "split", "owner", "view")} != {len(pixels)}:
            raise DataError(f"store '{folder.name}' does not fit together; ingest again")
        return SiteStore(pixels, index, facts)

    @property
    def patients(self) -> int:
        """Number of patients over all splits (exact: never leaves the site)."""
        return len(self._index["patients"])

    def members(self, *splits: Split) -> Members:
        """The patients of these splits, by pseudonym."""
        found = {}
        for split in splits:
            owners = np.unique(self._index["owner"][self._index["split"] == SPLITS.index(split)])
            found[split] = frozenset(self._index["patients"][owners].tolist())
        return Members(self.facts.key, **found)

    def cohort(self, split: Split) -> Cohort:
        """The patients of one split, renumbered from 0; pixels stay on disk until they are asked for."""
        rows = np.flatnonzero(self._index["split"] == SPLITS.index(split)).astype(np.int64)
        _, patient_index = np.unique(self._index["owner"][rows], return_inverse=True)
        patients, views = patient_index.astype(np.int64), self._index["view"][rows]
        return Cohort(self._pixels, self._index["labels"][rows], patients, rows, views)


def _partial(folder: Path) -> Path:
    """Where the store at `folder` grows."""
    return folder.parent / f".{folder.name}.partial"


@dataclass(frozen=True)
class _Whole:
    """A set that was read and looked at: dtype and shape of its pixels, numbers of the entries kept, their patients."""

    facts: dict[str, Any]
    entries: list[Entry]
    kept: list[int]
    names: list[str]
    splits: dict[str, Split]
    report: IngestReport


def _read(folder: Path, rows: Rows, terms: StoreTerms, about: str) -> _Whole:
    growing = Growing(folder, terms.form, about)
    for results in rows(growing.rows):
        growing.take(results)
    facts, entries = growing.finish(), growing.entries
    examined = examine(entries, growing.skipped, terms.answers)
    kept = [at for at in range(len(entries)) if at not in examined.dropped]
    names = [examined.patients[at] for at in kept]
    splits = assign_splits(zip(names, (entries[at].split for at in kept), strict=True), terms.split_key)
    return _Whole(facts, entries, kept, names, splits, report_of(entries, growing.skipped, examined, splits))


def _fill(folder: Path, rows: Rows, terms: StoreTerms, about: str) -> IngestReport:
    whole = _read(folder, rows, terms, about)
    facts, entries, kept = whole.facts, whole.entries, whole.kept
    if whole.report.questions:  # what was read is needed whole when they are answered
        return whole.report
    if len(kept) < len(entries):
        facts = keep_rows(folder / "pixels.npy", terms.form, kept)
    index = _index(whole, terms)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **index)
    write_atomic(folder / "index.npz", buffer.getvalue(), mode=0o600)
    whose = {"labels": list(terms.labels), "key": key_name(terms.split_key)}
    write_json(folder / "store.json", {"format": _FORMAT, **whose, **facts})
    return whole.report


def _index(whole: _Whole, terms: StoreTerms) -> dict[str, AnyArray]:
    """Labels, owner, split and view of every image that is kept, and the patients' pseudonyms."""
    patients = {name: number for number, name in enumerate(whole.splits)}
    entries = [whole.entries[at] for at in whole.kept]
    return {
        "labels": np.array([entry.label for entry in entries], dtype=np.int64),
        "owner": np.array([patients[name] for name in whole.names], dtype=np.int64),
        "split": np.array([SPLITS.index(whole.splits[name]) for name in whole.names], dtype=np.uint8),
        "view": np.array([entry.view for entry in entries], dtype="U16"),
        "patients": np.array([pseudonym(terms.split_key, name) for name in patients], dtype="U32"),
    }


def _spread_index(whole: _Whole, terms: StoreTerms, rows: int) -> dict[str, AnyArray]:
    """`_index` over all images that were read: what is not kept is in no split."""
    kept = _index(whole, terms)
    spread = {name: np.zeros(rows, dtype=kept[name].dtype) for name in ("labels", "owner", "view")}
    spread["split"] = np.full(rows, len(SPLITS), dtype=np.uint8)
    for name, values in spread.items():
        values[whole.kept] = kept[name]
    return {**spread, "patients": kept["patients"]}


def _facts(found: dict[str, Any], terms: StoreTerms) -> StoreFacts:
    return StoreFacts(tuple(terms.labels), tuple(found["shape"]), found["dtype"], key_name(terms.split_key))
