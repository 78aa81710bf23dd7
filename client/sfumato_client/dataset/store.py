"""The site's store: one folder, made whole or not at all, that holds pixels and an index without names.

`pixels.npy` [N, S, S(, 3)] is memory-mapped; `index.npz` has labels, split, owner and view of every image and the
patients' pseudonyms; `store.json`, written last, says what the other two must be, and which label every number stands
for. File names and patient ids are in none of them: only the local ingest report beside the store names files.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfumato_client.dataset.cohort import Cohort
from sfumato_client.dataset.pixel_file import keep_rows, write_pixels
from sfumato_client.dataset.report import REPORT, IngestReport, report_of
from sfumato_client.dataset.splits import SPLITS, assign_splits, key_name, pseudonym
from sfumato_client.ingest import Answers, Entry, SiteImage, Skipped, Split, settle
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
        """Write a store to `folder` from readers' output, image by image, and the report beside it.

        `labels` are the plan's, which the images' numbers count in. `check` is shown who would be in which cohort, and
        refuses by raising. `answers` are the hospital's to questions about the whole set; one that is open refuses.
        The folder appears by one rename after everything in it was flushed to disk; remains of an interrupted attempt
        are removed first (the caller holds the site's lock). Raises DataError when a store already stands there
        (changing a cohort under the ledger is not this function's to decide) or no image could be read.
        """
        if len(split_key) < 16:
            raise ConfigError("the split key is a secret of at least 128 bits; run 'sfumato-site init' anew")
        if folder.exists():
            raise DataError(f"a store already stands at '{folder.name}'; use it, or remove it to ingest anew")
        partial = folder.parent / f".{folder.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True, mode=0o700)
            report = _fill(partial, images, form, labels, split_key, answers or Answers())
            report.write(folder.parent / REPORT)
            report.require_settled()
            check(SiteStore.open(partial).members(*SPLITS))
            sync_folder(partial)
            partial.rename(folder)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise DataError(f"store '{folder.name}' cannot be written ({error.strerror}); nothing was kept") from None
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_folder(folder.parent)
        return report

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


def _fill(
    folder: Path,
    images: Iterable[SiteImage | Skipped],
    form: ImageForm,
    names_of: Sequence[str],
    split_key: bytes,
    answers: Answers,
) -> IngestReport:
    skipped, entries = list[Skipped](), list[Entry]()

    def taken() -> Iterable[AnyArray]:
        for item in images:
            if isinstance(item, Skipped):
                skipped.append(item)
                continue
            digest = hashlib.sha256(np.ascontiguousarray(item.pixels)).digest()[:16]
            said = (item.patient_id, item.label, item.split, item.view)
            entries.append(Entry(*said, digest, item.facts, item.notes))
            yield item.pixels

    facts = write_pixels(folder / "pixels.npy", taken(), form.shape)
    settled = settle(entries, skipped, answers)
    kept = [at for at in range(len(entries)) if at not in settled.dropped]
    if len(kept) < len(entries):
        facts = keep_rows(folder / "pixels.npy", kept)
    names = [settled.patients[at] for at in kept]
    splits = assign_splits(zip(names, (entries[at].split for at in kept), strict=True), split_key)
    patients = {name: number for number, name in enumerate(splits)}
    index: dict[str, AnyArray] = {
        "labels": np.array([entries[at].label for at in kept], dtype=np.int64),
        "owner": np.array([patients[name] for name in names], dtype=np.int64),
        "split": np.array([SPLITS.index(splits[name]) for name in names], dtype=np.uint8),
        "view": np.array([entries[at].view for at in kept], dtype="U16"),
        "patients": np.array([pseudonym(split_key, name) for name in patients], dtype="U32"),
    }
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **index)
    write_atomic(folder / "index.npz", buffer.getvalue(), mode=0o600)
    whose = {"labels": list(names_of), "key": key_name(split_key)}
    write_json(folder / "store.json", {"format": _FORMAT, **whose, **facts})
    return report_of(entries, skipped, settled, splits)
