"""Writing that leaves nothing half-written (temporary file in the same folder, fsync, rename); private folders."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from sfumato_common.errors import ConfigError, NoRoomError

_PIECE = 1024**2
_FULL = {errno.ENOSPC, errno.EDQUOT}
NO_ROOM = "the disk is full, or this user's part of it; make room, and the same goes on where it stood"


def write_atomic(
    path: Path, content: bytes | str | Iterable[bytes | memoryview], mode: int = 0o644, *, durable: bool = True
) -> None:
    """Write `content` to `path` so that a reader sees the old file or the whole new one, also after a power cut.

    Content in pieces is written as they come. What is not `durable` may be lost or damaged by one: it is what can be
    had again, and is checked when it is read.
    Raises NoRoomError when the disk is full.
    """
    whole = content.encode() if isinstance(content, str) else content
    pieces = [whole] if isinstance(whole, bytes) else whole
    with room_errors():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                for piece in pieces:
                    stream.write(piece)
                stream.flush()
                if durable:
                    os.fsync(stream.fileno())
            Path(temporary).chmod(mode)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        if durable:
            sync_folder(path.parent)


def move_into_place(temporary: Path, path: Path, mode: int = 0o644) -> None:
    """Give a file that was written piece by piece its name: fsync, rename, fsync of the folder.

    `temporary` lies on the same file system. Raises NoRoomError when the disk is full.
    """
    with room_errors():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        sync_folder(path.parent)


def file_sha256(path: Path) -> str:
    """Lower-case hexadecimal sha256 of a file, read piece by piece."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def room_errors() -> Iterator[None]:
    """A full disk as NoRoomError; other errors of the system as they are."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise NoRoomError(NO_ROOM) from None
        raise


def if_room() -> contextlib.AbstractContextManager[None]:
    """For files that tell people how things stand: that one cannot be written must cost nothing else."""
    return contextlib.suppress(OSError, NoRoomError)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file that tells people how things stand; empty where there is none, or it cannot be read."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


@contextlib.contextmanager
def set_aside(folder: Path, size: int) -> Iterator[Callable[[], None]]:
    """Take `size` bytes of the disk of `folder` until the yielded function gives them back, or the block ends.

    What must be written after work that cannot be done twice then finds room. Raises NoRoomError at once.
    """
    with room_errors():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as stream:
            _allocate(stream.fileno(), size)
            yield lambda: os.ftruncate(stream.fileno(), 0)


def _allocate(descriptor: int, size: int) -> None:
    """Take blocks for `size` bytes; by zeros where the system or the file system cannot allocate."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise
        for start in range(0, size, _PIECE):
            os.pwrite(descriptor, bytes(min(_PIECE, size - start)), start)


def temporary_in(folder: Path) -> None:
    """Temporary files of this process, and of those that it starts, lie in `folder` from now on.

    The variable alone is not enough: a library that was imported before may have asked where they go.
    """
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder.resolve())


def make_private_folder(folder: Path) -> None:
    """Make a folder, if need be, that nobody else on this machine can enter. Raises ConfigError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    close_folder(folder)


def close_folder(folder: Path) -> bool:
    """Shut everybody else on this machine out of a folder (mode 0700); returns whether it stood open.

    Raises ConfigError where that cannot be done: the folder is somebody else's, or its file system knows no modes.
    """
    if not _stands_open(folder):
        return False
    with contextlib.suppress(OSError):
        folder.chmod(0o700)
    if _stands_open(folder):
        raise ConfigError(
            f"'{folder.name}' can be entered by others on this machine and cannot be closed from here; let its owner "
            "run chmod 700 on it, or choose a home elsewhere"
        )
    return True


def _stands_open(folder: Path) -> bool:
    return bool(stat.S_IMODE(folder.stat().st_mode) & 0o077)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename or a new file in it survives a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Atomically write `value` as indented JSON with sorted keys and a final newline."""
    write_atomic(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def canonical_json(value: Any) -> bytes:
    """The one byte form of a JSON value that is hashed and signed: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")
