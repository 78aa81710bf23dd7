"""The site's store on disk: files of AES-256-GCM in pieces (`crypto/pieces.py`), each under a key of its own.

A file has an id of 128 random bits, and a key that follows from the store's key, the file's kind and that id.
"""

from __future__ import annotations

import hmac
import io
import os
from pathlib import Path
from typing import Any

from sfumato_common.crypto.pieces import (
    ID_BYTES,
    LAST,
    OVERHEAD,
    PIECE,
    PieceCipher,
    Pieces,
    derived_key,
    new_id,
)
from sfumato_common.errors import DataError
from sfumato_common.files import room_errors

ALTERED = (
    "the site's store was altered or damaged, or its files are of different stores: they do not open under its key; "
    "ingest again"
)


def store_key_name(store_key: bytes) -> str:
    """What tells a store's key from another one, and says nothing of it: 32 hexadecimal digits."""
    return derived_key(store_key, "name").hex()[:32]


def file_name(kind: str, file_id: bytes) -> str:
    """How the file of a kind and an id is called."""
    return f"{kind}-{file_id.hex()[:16]}"


class FileCipher(PieceCipher):
    """Encrypts and decrypts the pieces of one file of the store."""

    altered = ALTERED


class EncryptedWriter:
    """A new file in `folder`, written in `Pieces`; a context."""

    def __init__(self, folder: Path, kind: str, store_key: bytes) -> None:
        self.file_id = new_id()
        self._cipher, self._path = FileCipher(store_key, kind, self.file_id), folder / file_name(kind, self.file_id)

    def __enter__(self) -> EncryptedWriter:
        with room_errors():
            self._stream = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._pieces = Pieces(self._stream, self._cipher)
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        with self._stream, room_errors():
            if failed is None:
                self._pieces.finish()
                self._stream.flush()
                os.fsync(self._stream.fileno())

    def write(self, data: bytes | memoryview) -> int:
        """Take bytes; the file has them after the end of the context."""
        return self._pieces.write(data)

    def flush(self) -> None:
        """Nothing: a piece is written when it is full."""


class EncryptedReader(io.RawIOBase):
    """What `EncryptedWriter` wrote; a piece is in memory. Raises DataError where it is gone, cut or altered."""

    def __init__(self, folder: Path, kind: str, file_id: bytes, store_key: bytes) -> None:
        self._cipher, self._at, self._open = FileCipher(store_key, kind, file_id), 0, (-1, b"")
        try:
            self._stream = (folder / file_name(kind, file_id)).open("rb")
        except OSError:
            raise DataError(ALTERED) from None
        size = os.fstat(self._stream.fileno()).st_size
        self._pieces = max(1, -(-size // (PIECE + OVERHEAD)))
        self._size = size - self._pieces * OVERHEAD

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        super().close()

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, out: Any) -> int:
        """Read on, to the end of a piece at most."""
        number, start = divmod(self._at, PIECE)
        if self._at >= self._size:
            return 0
        if self._open[0] != number:
            self._stream.seek(number * (PIECE + OVERHEAD))
            place = number + (LAST if number == self._pieces - 1 else 0)
            self._open = number, self._cipher.decrypt(place, self._stream.read(PIECE + OVERHEAD))
        part = self._open[1][start : start + len(out)]
        out[: len(part)] = part
        self._at += len(part)
        return len(part)


def encrypt_whole(store_key: bytes, kind: str, data: bytes) -> bytes:
    """A file of its own id, in pieces like those of `EncryptedWriter`, for what is written at once and renamed."""
    cipher, pieces = FileCipher(store_key, kind, new_id()), max(1, -(-len(data) // PIECE))
    view, found = memoryview(data), [cipher.file_id]
    for number in range(pieces):
        place = number + (LAST if number == pieces - 1 else 0)
        found.append(cipher.encrypt(place, view[number * PIECE : (number + 1) * PIECE]))
    return b"".join(found)


def decrypt_whole(store_key: bytes, kind: str, encrypted: bytes) -> bytes:
    """What `encrypt_whole` was given. Raises DataError where it was cut, altered, or is of another store or kind."""
    cipher, view = FileCipher(store_key, kind, encrypted[:ID_BYTES]), memoryview(encrypted)[ID_BYTES:]
    pieces, found = max(1, -(-len(view) // (PIECE + OVERHEAD))), []
    for number in range(pieces):
        place = number + (LAST if number == pieces - 1 else 0)
        found.append(cipher.decrypt(place, view[number * (PIECE + OVERHEAD) : (number + 1) * (PIECE + OVERHEAD)]))
    return b"".join(found)


def authenticate(store_key: bytes, kind: str, data: bytes) -> str:
    """HMAC-SHA-256 of `data` for one purpose, as hexadecimal digits."""
    return hmac.digest(derived_key(store_key, kind), data, "sha256").hex()
