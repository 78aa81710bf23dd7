"""A store that grows row by row, so that an ingest which was killed, or which had to ask, goes on where it stood.

`pixels.npy` grows image by image; `journal` has a line a row, written after its pixels, with what is known of them. A
line that was cut off is not counted, nor are pixels without a line. Both lie beside the store, readable by its owner
alone, until it is whole: they name files and patients, which nothing in a store does.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sfumato_client.dataset.pixel_file import PixelFile
from sfumato_client.ingest import Entry, Facts, Results, SiteImage, Skipped
from sfumato_common.files import make_private_folder
from sfumato_common.study.terms import ImageForm

# the results of a source's rows from a number on
Rows = Callable[[int], Iterator[Results]]
JOURNAL = "journal"
_SYNC_SECONDS = 5.0


class Growing:
    """What was read so far into `folder`; `about` says of what, and another or none begins anew."""

    def __init__(self, folder: Path, form: ImageForm, about: str) -> None:
        self.entries, self.skipped, self.rows = list[Entry](), list[Skipped](), 0
        self._path = folder / JOURNAL
        kept = self._read(about) if about else 0
        if not kept or not PixelFile.holds(folder / "pixels.npy", form, len(self.entries)):
            kept = 0
            shutil.rmtree(folder, ignore_errors=True)
            make_private_folder(folder)
            self.entries, self.skipped, self.rows = [], [], 0
        self._pixels = PixelFile(folder / "pixels.npy", form, len(self.entries))
        self._journal = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600), "r+b" if kept else "wb")
        self._journal.truncate(kept)
        self._journal.seek(kept)
        if not kept:
            self._journal.write(json.dumps({"about": about}).encode() + b"\n")
        self._synced = time.monotonic()

    def take(self, results: Results) -> None:
        """Keep a row's results."""
        line = list[dict[str, Any]]()
        for one in results:
            if isinstance(one, Skipped):
                self.skipped.append(one)
                line.append({"skipped": [one.reference, one.reason]})
                continue
            entry = _entry_of(one)
            self._pixels.append(one.pixels)
            self.entries.append(entry)
            line.append({"image": {**asdict(entry), "digest": entry.digest.hex()}})
        self._pixels.flush()
        self._journal.write(json.dumps(line).encode() + b"\n")
        self._journal.flush()
        self.rows += 1
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self._sync()

    def finish(self) -> dict[str, Any]:
        """Close both files; dtype and shape of the pixels, for `store.json`."""
        self._sync()
        self._journal.close()
        return self._pixels.close()

    def _sync(self) -> None:
        self._pixels.sync()
        os.fsync(self._journal.fileno())
        self._synced = time.monotonic()

    def _read(self, about: str) -> int:
        """Take what stands in the journal; how many of its bytes count, 0 where it is of another set, or broken."""
        try:
            data = self._path.read_bytes()
            first, *lines = data[: data.rindex(b"\n") + 1].splitlines(keepends=True)
            if json.loads(first)["about"] != about:
                return 0
            for line in lines:
                for one in json.loads(line):
                    if "skipped" in one:
                        self.skipped.append(Skipped(*one["skipped"]))
                    else:
                        self.entries.append(_entry_again(one["image"]))
                self.rows += 1
        except (OSError, ValueError, KeyError, TypeError):
            return 0
        return len(first) + sum(map(len, lines))


def _entry_of(image: SiteImage) -> Entry:
    digest = hashlib.sha256(np.ascontiguousarray(image.pixels).tobytes()).digest()[:16]
    said = (image.patient_id, image.label, image.split, image.view)
    return Entry(*said, digest, image.facts, image.notes)


def _entry_again(said: dict[str, Any]) -> Entry:
    changed = {"digest": bytes.fromhex(said["digest"]), "facts": Facts(**said["facts"]), "notes": tuple(said["notes"])}
    return Entry(**{**said, **changed})
