"""One encrypted file from a stream: AES-256-GCM in pieces (`pieces.py`), under a passphrase.

The key comes from the passphrase by scrypt (RFC 7914) with a salt of its own. What was altered, cut short or put
together from two files does not open. Nobody has to know how long the stream is before it ends.
"""

from __future__ import annotations

import io
import json
import secrets
from pathlib import Path
from typing import Any, BinaryIO

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from sfumato_common.crypto.pieces import KEY_BYTES, LAST, OVERHEAD, PIECE, PieceCipher, Pieces, new_id
from sfumato_common.errors import ConfigError, DataError, VerificationError

FORMAT, KIND, SHORTEST = b"sfumato-backup/1\n", "backup", 12
_N, _R, _P = 2**17, 8, 1  # 128 MiB and some tenths of a second for each guess
_LONGEST_HEAD = 1024
DAMAGED = "the backup does not open: the passphrase is another one, or the file was altered or cut short"


class SealedWriter(Pieces):
    """Takes bytes and writes them encrypted to `stream`, behind what opens them; whole only after `finish`.

    Raises ConfigError for a short passphrase.
    """

    def __init__(self, stream: BinaryIO, passphrase: bytes) -> None:
        if len(passphrase) < SHORTEST:
            raise ConfigError(
                f"a backup's passphrase has at least {SHORTEST} letters: who has the file can try at will"
            )
        salt, file_id = secrets.token_bytes(16), new_id()
        super().__init__(stream, PieceCipher(_key(passphrase, salt), KIND, file_id))
        head = {"salt": salt.hex(), "file_id": file_id.hex(), "kdf": "scrypt"}
        stream.write(FORMAT + json.dumps(head, sort_keys=True).encode() + b"\n")


class SealedReader(io.RawIOBase):
    """What a `SealedWriter` took. Raises VerificationError for another passphrase, and where it was altered or cut."""

    def __init__(self, path: Path, passphrase: bytes) -> None:
        try:
            self._stream = path.open("rb")
        except OSError as error:
            raise ConfigError(f"'{path.name}' cannot be read ({error.strerror}); check the path") from None
        if self._stream.read(len(FORMAT)) != FORMAT:
            raise VerificationError(f"'{path.name}' is no backup of Sfumato, or of another version")
        try:
            head = json.loads(self._stream.readline(_LONGEST_HEAD))
            key = _key(passphrase, bytes.fromhex(head["salt"]))
            self._cipher = PieceCipher(key, KIND, bytes.fromhex(head["file_id"]))
        except (ValueError, KeyError, TypeError):
            raise VerificationError(DAMAGED) from None
        self._place, self._waiting = 0, b""
        self._next: bytes | None = self._stream.read(PIECE + OVERHEAD)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        super().close()

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, out: Any) -> int:
        """Read on, to the end of a piece at most."""
        if not self._waiting and self._next is not None:
            piece, following = self._next, self._stream.read(PIECE + OVERHEAD)
            try:
                self._waiting = self._cipher.decrypt(self._place + (0 if following else LAST), piece)
            except DataError:
                raise VerificationError(DAMAGED) from None
            self._place, self._next = self._place + 1, following or None
        part = self._waiting[: len(out)]
        out[: len(part)], self._waiting = part, self._waiting[len(part) :]
        return len(part)


def _key(passphrase: bytes, salt: bytes) -> bytes:
    return Scrypt(salt, KEY_BYTES, _N, _R, _P).derive(passphrase)
