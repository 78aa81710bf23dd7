"""A folder as one encrypted file, and a folder from it: a tar (POSIX.1-2001) in a sealed file, a note first.

Regular files and folders alone; what is neither is in no archive that was written here, and one that holds it is
refused. What is written is nameless until it is whole.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from sfumato_common.crypto.sealed_file import DAMAGED, SealedReader, SealedWriter
from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.files import make_private_folder, move_into_place, sync_folder

_NOTE = "backup.json"
Said = TypeVar("Said")


def write_archive(out: Path, passphrase: bytes, note: Mapping[str, Any], root: Path, paths: Iterable[Path]) -> None:
    """Write `paths` below `root`, folders before what they hold, into the encrypted file `out`, with `note`.

    Raises ConfigError for a short passphrase.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            sealed = SealedWriter(stream, passphrase)
            with tarfile.open(fileobj=cast(IO[bytes], sealed), mode="w|", format=tarfile.PAX_FORMAT) as tar:
                _add_text(tar, _NOTE, json.dumps(note, sort_keys=True, indent=2))
                for path in paths:
                    tar.add(path, str(path.relative_to(root)), recursive=False)
            sealed.finish()
        move_into_place(Path(temporary), out, mode=0o600)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_archive(archive: Path, into: Path, passphrase: bytes) -> dict[str, Any]:
    """Unpack an archive into the empty folder `into`, closed to others; its note.

    Raises VerificationError where it was altered, cut short or of another passphrase, ConfigError where it cannot be
    read.
    """
    with SealedReader(archive, passphrase) as sealed, io.BufferedReader(sealed) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                for member in tar:
                    if not (member.isdir() or member.isreg()):
                        raise VerificationError(DAMAGED)
                    tar.extract(member, into, filter="data")
            while stream.read(1024**2):  # to the last piece: a file that was cut short does not pass
                pass
        except (tarfile.TarError, EOFError):
            raise VerificationError(DAMAGED) from None
    for folder, folders, names in os.walk(into):
        for name in folders:
            (Path(folder) / name).chmod(0o700)
        for name in names:
            (Path(folder) / name).chmod((Path(folder) / name).stat().st_mode & 0o700 | 0o600)
    try:
        note = dict(json.loads((into / _NOTE).read_text()))
    except (OSError, ValueError, TypeError):
        raise VerificationError(DAMAGED) from None
    (into / _NOTE).unlink()
    return note


@contextlib.contextmanager
def unpacked(archive: Path, root: Path, passphrase: bytes) -> Iterator[tuple[dict[str, Any], Path]]:
    """An archive's note and a folder of its files, which has the name `root` when the body ends; gone when it fails.

    Raises ConfigError where something stands at `root`, and what `read_archive` raises.
    """
    if root.exists() and any(root.iterdir()):
        raise ConfigError(f"'{root.name}' is not empty; restore into a folder that is not there yet")
    partial = root.with_name(f".{root.name}.restoring")
    shutil.rmtree(partial, ignore_errors=True)
    make_private_folder(partial)
    try:
        yield read_archive(archive, partial, passphrase), partial
        if root.exists():
            root.rmdir()
        partial.rename(root)
        sync_folder(root.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def manifest_of(note: Mapping[str, Any], kind: Callable[..., Said], form: str, otherwise: str) -> Said:
    """What a note says. Raises VerificationError, with the words `otherwise` where its format is not `form`."""
    if note.get("format") != form:
        raise VerificationError(otherwise)
    try:
        return kind(**note)
    except TypeError:
        raise VerificationError(DAMAGED) from None


def below(root: Path, left_out: Collection[str]) -> Iterator[Path]:
    """Folders and files below `root`, but those of the names `left_out` wherever they lie, and links."""
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if name not in left_out and not (here / name).is_symlink())
        yield from (here / name for name in folders)
        for name in sorted(names):
            path = here / name
            if name not in left_out and path.is_file() and not path.is_symlink():
                yield path


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode()
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o600
    tar.addfile(member, io.BytesIO(data))
