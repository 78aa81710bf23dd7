"""The home's folder `incoming`: objects that came from a PACS, whole or not at all, under names that tell nothing.

incoming/images/3f/3f9c....dcm   one object; its name is a keyed hash of its SOP Instance UID
incoming/index.csv               what each file is, for labels to be joined to
incoming/.parts/                 what is just coming; emptied when its process ends or has died
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sfumato_client.pacs.headers import Header, read_header
from sfumato_client.pacs.index import read_index, write_index
from sfumato_common.errors import NoRoomError
from sfumato_common.files import NO_ROOM, make_private_folder, move_into_place, room_errors
from sfumato_common.locks import exclusive, in_turn, is_held

_PARTS = ".parts"


@dataclass(frozen=True)
class Expected:
    """An object that was asked for, by its UIDs; `sop_class` is empty where the PACS did not say it."""

    study: str
    series: str
    instance: str
    sop_class: str = ""


class RejectedObjectError(Exception):
    """What came is not kept. Its text is the reason, without a value of a patient."""


class Incoming:
    """Objects in a folder of the home; safe for several threads, and for several processes beside each other."""

    def __init__(self, root: Path, key: bytes, parts: Path, largest: int) -> None:
        self.root, self.largest = root, largest
        self._key = hmac.digest(key, b"names of incoming objects", "sha256")
        self._parts = parts
        self._came: dict[str, Header] = {}
        self._lock = threading.Lock()

    @staticmethod
    @contextlib.contextmanager
    def open(root: Path, key: bytes, largest: int) -> Iterator[Incoming]:
        """The folder at `root`, made if need be; parts of processes that died are removed, and at the end its own.

        `key` is the site's secret, `largest` the most bytes of one object. When the block ends, also by an error, the
        index is written anew.
        """
        make_private_folder(root)
        make_private_folder(root / _PARTS)
        for old in (root / _PARTS).iterdir():
            if not is_held(old):
                shutil.rmtree(old, ignore_errors=True)
        parts = root / _PARTS / secrets.token_hex(8)
        make_private_folder(parts)
        with exclusive(parts, "a transfer"):
            incoming = Incoming(root, key, parts, largest)
            try:
                yield incoming
            finally:
                incoming.write_index()
                shutil.rmtree(parts, ignore_errors=True)

    @property
    def images(self) -> Path:
        """The folder that an ingest reads."""
        return self.root / "images"

    @property
    def parts(self) -> Path:
        """Where this process writes what is just coming."""
        return self._parts

    def name_of(self, instance: str) -> str:
        """The file of an object, relative to `images`: HMAC-SHA-256 of its SOP Instance UID, 128 bits of it."""
        name = hmac.new(self._key, instance.encode(), hashlib.sha256).hexdigest()[:32]
        return f"{name[:2]}/{name}.dcm"

    def has(self, instance: str) -> bool:
        """Whether an object is there, whole."""
        return (self.images / self.name_of(instance)).is_file()

    @contextlib.contextmanager
    def part(self) -> Iterator[tuple[BinaryIO, Path]]:
        """A file for what is coming, which is gone after the block unless `keep` took it.

        Raises NoRoomError when the disk is full.
        """
        with room_errors():
            handle, name = tempfile.mkstemp(dir=self._parts, prefix=".", suffix=".part")
            try:
                with os.fdopen(handle, "wb") as stream:
                    yield stream, Path(name)
            finally:
                Path(name).unlink(missing_ok=True)

    def keep(self, part: Path, expected: Expected | None = None, stated: tuple[str, str] | None = None) -> bool:
        """Take a whole file; returns False where the very same was there. One that differs takes the older's place.

        `stated` are the SOP Instance and Class UIDs under which it came. Raises RejectedObjectError for what is no
        whole DICOM object, or another one than was asked for.
        """
        header = read_header(part)
        if isinstance(header, str):
            raise RejectedObjectError(header)
        if expected is not None and (reason := _another(header, expected)):
            raise RejectedObjectError(reason)
        if stated is not None and stated != (header.instance, header.sop_class):
            raise RejectedObjectError("what came is another object than its sender says")
        name = self.name_of(header.instance)
        path = self.images / name
        if path.is_file() and _same(path, part):
            return False
        move_into_place(part, path, 0o600)
        with self._lock:
            self._came[name] = header
        return True

    def require_room(self, keep_free: int) -> None:
        """Raise NoRoomError where less than `keep_free` bytes are free."""
        if shutil.disk_usage(self.root).free < keep_free:
            raise NoRoomError(NO_ROOM)

    def sweep(self, older_s: float) -> None:
        """Remove parts that nobody has written to for that long: of peers that went away."""
        for path in self._parts.glob(".*.part"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > older_s:
                    path.unlink()

    def write_index(self) -> None:
        """Write `index.csv` of all files that are there; headers are read of those alone that it does not know."""
        with in_turn(self.root):
            with self._lock:
                came, self._came = self._came, {}
            try:
                known, since = read_index(self.root)
                there = set[str]()
                for path in self.images.glob("*/*.dcm"):
                    name = path.relative_to(self.images).as_posix()
                    there.add(name)
                    if name in came or (name in known and path.stat().st_ctime_ns < since):
                        continue
                    header = read_header(path)
                    if not isinstance(header, str):
                        known[name] = header
                known |= came
                write_index(self.root, {name: header for name, header in known.items() if name in there})
            except BaseException:
                with self._lock:
                    self._came = came | self._came
                raise


def _another(header: Header, expected: Expected) -> str:
    """Why an object is not the one that was asked for; empty where it is."""
    if header.study != expected.study:
        return "the PACS sent an object of another study than it was asked for"
    if header.series != expected.series or header.instance != expected.instance:
        return "the PACS sent another object than it was asked for"
    if expected.sop_class and header.sop_class != expected.sop_class:
        return "the PACS sent an object of another class than it had said"
    return ""


def _same(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes."""
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as first, other.open("rb") as second:
        while piece := first.read(1024**2):
            if piece != second.read(1024**2):
                return False
    return True
