"""A store that grows row by row, so that an ingest which was killed, or which had to ask, goes on where it stood.

The pixels grow image by image; the journal has a record a row, written after its pixels, with what is known of them. A
record that was cut off is not counted, nor are pixels without one, nor a row whose file is another since. Both lie
beside the store until it is whole, and encrypted as it is: the journal names files and patients, and a store does not.
"""

from __future__ import annotations

import shutil
import time
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sfumato_client.dataset.entries import new_entries, new_rows, new_skipped
from sfumato_client.dataset.journal import JOURNAL, Journal, read_journal
from sfumato_client.dataset.pixel_file import PixelFacts, PixelFile
from sfumato_client.dataset.register import Register
from sfumato_client.dataset.rows import RowRead
from sfumato_client.dataset.tokens import entry_of, row_tokens
from sfumato_client.ingest import Entry, Facts, Kept, Results, Skipped, Stamp, Stamped
from sfumato_common.files import make_private_folder
from sfumato_common.study.terms import ImageForm

# the results of a source's rows from a number on
Rows = Callable[[int], Iterator[Results]]
Unchanged = Callable[[Stamp], bool]
_SYNC_SECONDS = 5.0


class Growing:
    """What was read so far into `folder`; `about` says of what, and another or none begins anew.

    `unchanged` says of a row that was read whether its file is as it was then. `before` is the store that is updated,
    `settings` all that the source says of how rows are read.
    """

    def __init__(
        self,
        folder: Path,
        form: ImageForm,
        about: str,
        keys: tuple[bytes, bytes],
        unchanged: Unchanged = lambda stamp: True,
        before: Register | None = None,
        settings: str = "",
    ) -> None:
        self._split_key, self._store_key = keys
        self._folder, self._before, self._unchanged, self._settings = folder, before, unchanged, settings
        make_private_folder(folder)
        self._forget()
        kept = self._read(form, about) if about else None
        if kept is None:
            shutil.rmtree(folder, ignore_errors=True)
            make_private_folder(folder)
            self._forget()
            self._pixels = PixelFile(folder, form, self._store_key)
            self._journal = Journal(folder / JOURNAL, self._store_key)
            self._journal.append({"about": about, "pixels": self._pixels.file_id.hex()})
        else:
            self._pixels = PixelFile(folder, form, self._store_key, (kept[0], len(self.entries)))
            self._journal = Journal(folder / JOURNAL, self._store_key, kept[1])
        self._synced = time.monotonic()

    def _forget(self) -> None:
        self.entries, self.skipped, self.rows = new_entries(self._folder), new_skipped(self._folder), 0
        # rows that gave images, and which images of the store before they gave
        self.read, self.taken = new_rows(self._folder), array("I")

    def take(self, results: Results) -> None:
        """Keep a row's results."""
        stamp = results.stamp if isinstance(results, Stamped) else None
        line = list[dict[str, Any]]()
        for one in results:
            if isinstance(one, Kept):
                line.append({"kept": list(one.numbers), "as": one.reference})
                self._copy(one.numbers, one.reference)
            elif isinstance(one, Skipped):
                self.skipped.append(one)
                line.append({"skipped": [one.reference, one.reason]})
            else:
                entry = entry_of(one, self._split_key)
                self._pixels.append(one.pixels)
                self.entries.append(entry)
                line.append({"image": _words(entry), "who": one.patient_id})
        self._note(stamp, line)
        self.rows += 1
        self._write({"row": line, "stamp": asdict(stamp) if stamp else None})

    def keep(self, numbers: Sequence[int]) -> None:
        """Keep these images of the store before, whose rows are gone; after all rows, and not for a kill to go on."""
        self._copy(numbers, "")

    def finish(self) -> PixelFacts:
        """Close both files."""
        self._sync()
        self._journal.close()
        return self._pixels.close()

    def names(self, wanted: Collection[str]) -> dict[str, str]:
        """Which identifier each of these tokens stands for, where it was read; of those kept, whose file it is."""
        found = dict[str, str]()
        for record, _ in read_journal(self._folder / JOURNAL, self._store_key):
            for one in record.get("row", ()):
                if "image" in one:
                    patient, name = one["image"]["patient_id"], one["who"]
                elif "kept" in one and self._before is not None:
                    patient, name = self._before.entry(one["kept"][0], "").patient_id, f"the patient of {one['as']}"
                else:
                    continue
                if patient in wanted and ("image" in one or patient not in found):
                    found[patient] = name
        return found

    def _copy(self, numbers: Iterable[int], reference: str) -> None:
        assert self._before is not None, "what is kept is of a store before"
        for number in numbers:
            self._pixels.append(self._before.pixels[number])
            self.entries.append(self._before.entry(number, reference))
            self.taken.append(number)

    def _note(self, stamp: Stamp | None, line: Sequence[dict[str, Any]]) -> None:
        """Which images a row gave; a row of which something was skipped is read again by the next update."""
        images = sum(len(one.get("kept", ())) or "image" in one for one in line)
        if stamp is None or not images:
            return
        about, row = row_tokens(stamp, self._split_key, self._settings)
        whole = all("skipped" not in one for one in line)
        first = len(self.entries) - images
        self.read.append(RowRead(about, row if whole else "", stamp.size, stamp.time, first, images))

    def _write(self, record: dict[str, Any]) -> None:
        self._pixels.flush()
        self._journal.append(record)
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self._sync()

    def _sync(self) -> None:
        self._pixels.sync()
        self._journal.sync()
        self._synced = time.monotonic()

    def _read(self, form: ImageForm, about: str) -> tuple[bytes, tuple[int, int]] | None:
        """Take what stands in the journal: (id of the pixels, records and bytes that count), or None for another."""
        records = read_journal(self._folder / JOURNAL, self._store_key)
        try:
            first, end = next(records)
            if first["about"] != about:
                return None
            count = 1
            for record, after in records:
                if not self._again(record):
                    break
                count, end = count + 1, after
            pixels = bytes.fromhex(first["pixels"])
        except (StopIteration, ValueError, KeyError, TypeError, IndexError):
            return None
        return (pixels, (count, end)) if PixelFile.holds(self._folder, form, pixels, len(self.entries)) else None

    def _again(self, record: dict[str, Any]) -> bool:
        """Take one record of the journal; False, and nothing, where the row's file is another since."""
        stamp = Stamp(**record["stamp"]) if record["stamp"] else None
        if stamp is not None and not self._unchanged(stamp):
            return False
        for one in record["row"]:
            if "skipped" in one:
                self.skipped.append(Skipped(*one["skipped"]))
            elif "kept" in one:
                self._copy_words(one["kept"], one["as"])
            else:
                self.entries.append(_entry_again(one["image"]))
        self._note(stamp, record["row"])
        self.rows += 1
        return True

    def _copy_words(self, numbers: Sequence[int], reference: str) -> None:
        assert self._before is not None, "a journal of an update is of its store alone"
        for number in numbers:
            self.entries.append(self._before.entry(number, reference))
        self.taken.extend(numbers)


def _words(entry: Entry) -> dict[str, Any]:
    return {**asdict(entry), "digest": entry.digest.hex()}


def _entry_again(said: dict[str, Any]) -> Entry:
    changed = {"digest": bytes.fromhex(said["digest"]), "facts": Facts(**said["facts"]), "notes": tuple(said["notes"])}
    return Entry(**{**said, **changed})
