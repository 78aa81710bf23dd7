"""Where a source's files lie: a folder, one with a DICOMDIR, or a zip, which is read where it is.

A file in a zip has the path ARCHIVE/NAME, which only this module opens, in memory: nothing is unpacked to disk. Its
name decides nothing but which entry is read, so that one that leads elsewhere leads nowhere.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from sfumato_client.ingest.table import QUOTES, Listed
from sfumato_common.dicom.unreadable import UnreadableError
from sfumato_common.errors import DataError

_ENCRYPTED = 0x1
_ZIP, _ZIP_MARK = ".zip", b"PK\x03\x04"
# one entry may unpack to so many bytes, and from a certain size on to so many times what it takes in the archive
_LARGEST, _RATIO, _RATIO_FROM = 2**29, 200, 2**24
_UID = re.compile(r"\d+(\.\d+){3,}")
_DIRECTORY = "DICOMDIR"
_ENDING = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,5}")


class Folder:
    """A folder on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(self) -> None:
        """Raises DataError unless it can be listed."""
        try:
            with os.scandir(self.path) as entries:
                next(entries, None)
        except NotADirectoryError:
            raise DataError(
                f"'{self.path.name}' is a file, neither a folder nor a .zip; unpack it where it is another archive"
            ) from None
        except OSError as error:
            raise DataError(
                f"data folder '{self.path.name}' cannot be read ({error.strerror}); check the path and its rights"
            ) from None

    def find(self, name: str) -> Path:
        """The file that a row names, by its path or, beside a DICOMDIR, by its SOP Instance UID.

        Raises UnreadableError for no name, a path out of the folder, or a missing file.
        """
        if _UID.fullmatch(name) and not self._is_there(name) and name in self._directory:
            name = self._directory[name]
        if "\\" in name and not self._is_there(name):  # written on Windows
            name = name.replace("\\", "/")
        if not self._is_there(name):
            name = self._nearly.get(_key(name)) or name
        relative = PurePosixPath(name)
        if not name or relative.is_absolute() or ".." in relative.parts:
            raise UnreadableError("the file name is empty or leads out of the folder")
        if not self._is_there(name):
            raise UnreadableError("file not found")
        return self.path / relative

    def state_of(self, name: str) -> tuple[int, int]:
        """Size and time (ns) of the file that a row names; (-1, 0) of none."""
        try:
            found = self.find(name).stat()
        except (UnreadableError, OSError, ValueError):
            return -1, 0
        return found.st_size, found.st_mtime_ns

    def names(self) -> Iterator[str]:
        """Relative names of all its files, in order; hidden ones aside."""
        for path in sorted(self.path.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                yield path.relative_to(self.path).as_posix()

    def unlisted(self, listed: Listed, table: Path) -> Iterator[str]:
        """Names of files that no row names, in order; the table itself, hidden files and a DICOMDIR aside.

        Folder by folder: of a million files the names of one folder's unlisted ones are in memory.
        """
        own, waiting = table.resolve(), [(self.path, self.path.resolve())]
        while waiting:
            here, real = waiting.pop()
            files, folders = list[str](), list[str]()
            with contextlib.suppress(PermissionError), os.scandir(here) as entries:
                for entry in entries:
                    if entry.is_dir():
                        # as rglob: a link to a folder is not followed, it may lead around
                        folders += [] if entry.is_symlink() else [entry.name]
                    elif entry.is_file() and not entry.name.startswith(".") and entry.name.upper() != _DIRECTORY:
                        path = Path(entry.path).resolve() if entry.is_symlink() else real / entry.name
                        files += [] if path in listed or path == own else [entry.name]
            waiting += [(here / name, real / name) for name in sorted(folders, reverse=True)]
            yield from ((here / name).relative_to(self.path).as_posix() for name in sorted(files))

    def _is_there(self, name: str) -> bool:
        try:
            return (self.path / PurePosixPath(name)).is_file()
        except (OSError, ValueError):
            return False

    @cached_property
    def _nearly(self) -> dict[str, str | None]:
        """Names of files by what programs change of them, with and without ending; None for what several have.

        The last number of a UID is no ending: 1.2.3 is not the file 1.2.3.4, which is of another image.
        """
        found: dict[str, str | None] = {}
        for name in self.names():
            path = PurePosixPath(name)
            bare = path.with_suffix("") if _ENDING.fullmatch(path.suffix) else path
            for key in {_key(name), _key(str(bare))}:
                found[key] = None if key in found else name
        return found

    @cached_property
    def _directory(self) -> dict[str, str]:
        """Names of files by SOP Instance UID, as the DICOMDIR says them; without one, nothing."""
        from sfumato_client.ingest.directory import read_directory

        found = next((name for name in (_DIRECTORY, _DIRECTORY.lower()) if self._is_there(name)), None)
        if found is None:
            return {}
        of_disk = {name.upper(): name for name in self.names()}
        return {uid: of_disk.get(name.upper(), name) for uid, name in read_directory(self.path / found).items()}


class Archive(Folder):
    """A zip as a folder."""

    def check(self) -> None:
        """Raises DataError unless it is a whole zip without a password."""
        if any(info.flag_bits & _ENCRYPTED for info in self._entries.values()):
            raise DataError(f"archive '{self.path.name}' is protected by a password; unpack it into a folder")

    def state_of(self, name: str) -> tuple[int, int]:
        """Size and checksum (CRC-32) of the entry that a row names; (-1, 0) of none."""
        try:
            info = self._entries[self.find(name).relative_to(self.path).as_posix()]
        except (UnreadableError, KeyError):
            return -1, 0
        return info.file_size, info.CRC

    def unlisted(self, listed: Listed, table: Path) -> Iterator[str]:
        """Names of entries that no row names, in order; a DICOMDIR aside."""
        real = self.path.resolve()
        for name in self.names():
            if real / name not in listed and name.upper() != _DIRECTORY:
                yield name

    def names(self) -> Iterator[str]:
        """Names of its entries that are files, in order; hidden ones aside."""
        for name in sorted(self._entries):
            if not any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts):
                yield name

    def read(self, name: str) -> bytes:
        """An entry, unpacked in memory. Raises UnreadableError for one that is none, too large, or damaged."""
        info = self._entries.get(name)
        if info is None:
            raise UnreadableError("file not found")
        if name in self._twice:
            raise UnreadableError("the archive has two files of this name")
        size, packed = info.file_size, max(1, info.compress_size)
        if size > _LARGEST or (size > _RATIO_FROM and size > _RATIO * packed):
            raise UnreadableError("in the archive it is packed so tightly, or so large, that it is not unpacked")
        try:
            with self._zip.open(info) as stream:
                data = stream.read(size + 1)
        except NotImplementedError:
            raise UnreadableError("in the archive it is compressed in a way that is not read here; unpack it") from None
        except MemoryError:
            raise
        except Exception:  # zlib, lzma, bad checksums: whatever damage makes of them
            raise UnreadableError("in the archive it is damaged or cut off") from None
        if len(data) != size:
            raise UnreadableError("in the archive it is damaged or cut off")
        if data.startswith(_ZIP_MARK):
            raise UnreadableError("a zip within a zip; unpack it")
        return data

    def _is_there(self, name: str) -> bool:
        return name in self._entries

    @cached_property
    def _zip(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except OSError as error:
            raise DataError(f"archive '{self.path.name}' cannot be read ({error.strerror}); check its rights") from None
        except Exception:  # broken directories raise what struct and decoders raise
            raise DataError(f"archive '{self.path.name}' is no zip, or is cut off; copy it again") from None

    @cached_property
    def _listed(self) -> list[zipfile.ZipInfo]:
        """All that its directory lists. A damaged directory has entries without a name, at which zipfile stumbles."""
        listed = self._zip.infolist()
        if not all(info.filename for info in listed):
            raise DataError(f"archive '{self.path.name}' lists a file without a name: it is damaged; copy it again")
        return listed

    @cached_property
    def _entries(self) -> dict[str, zipfile.ZipInfo]:
        return {_plain(info.filename): info for info in self._listed if not info.is_dir()}

    @cached_property
    def _twice(self) -> set[str]:
        counts = Counter(_plain(info.filename) for info in self._listed)
        return {name for name, count in counts.items() if count > 1}


def folder_of(path: Path) -> Folder:
    """What lies at `path`."""
    return Archive(path) if path.suffix.lower() == _ZIP and path.is_file() else Folder(path)


def content(path: Path) -> bytes:
    """The bytes of a file that `Folder.find` gave. Raises UnreadableError."""
    with opened(path) as file:
        return file.read()


def opened(path: Path) -> BinaryIO:
    """A file that `Folder.find` gave. Raises UnreadableError."""
    archive = _archive_of(path)
    if archive is not None:
        return io.BytesIO(_kept(archive).read(path.relative_to(archive).as_posix()))
    try:
        return path.open("rb")
    except OSError as error:
        raise UnreadableError(f"the file cannot be read ({error.strerror})") from None


def _archive_of(path: Path) -> Path | None:
    return next((above for above in path.parents if above.suffix.lower() == _ZIP and above.is_file()), None)


@lru_cache(maxsize=2)
def _kept(path: Path) -> Archive:
    """Of a reader's process: an archive's directory is read once."""
    return Archive(path)


def _key(name: str) -> str:
    """A name without what systems change of it: the form and case of letters, signs that are not seen, quotes."""
    text = unicodedata.normalize("NFC", name.strip(f"{QUOTES} ")).casefold()
    return _plain("".join(sign for sign in text if unicodedata.category(sign) != "Cf"))


def _plain(name: str) -> str:
    return str(PurePosixPath(name.replace("\\", "/")))
