"""AES-256-GCM (NIST SP 800-38D) under a key of one file, which HKDF-SHA-256 (RFC 5869) makes of the store's key.

A file has an id of 128 random bits, and a key that follows from the store's key, the file's kind and that id. What is
encrypted has a place in its file; id and place are bound to it as associated data, so that pieces that were swapped,
repeated, left out or taken from another file do not open.

**No nonce comes twice.** Each encryption draws 96 bits from the operating system, and none follows from a place. A file
that a kill cut short and that is written on has other bytes for the same place under the same key, but under another
nonce. Two of n nonces under one key agree with probability below n^2 / 2^97, kills counted: 2^-33 at the 2^32 places
that a file may have, the most that SP 800-38D (8.3) allows for random nonces.
"""

from __future__ import annotations

import hmac
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sfumato_common.errors import DataError
from sfumato_common.files import room_errors

KEY_BYTES, ID_BYTES, NONCE_BYTES = 32, 16, 12
OVERHEAD = NONCE_BYTES + 16  # bytes that encryption adds
MOST_PLACES = 2**32
PIECE, LAST = 2**20, 2**40  # of a file that is written at once; what is added to the place of its last piece
ALTERED = (
    "the site's store was altered or damaged, or its files are of different stores: they do not open under its key; "
    "ingest again"
)


def derived_key(store_key: bytes, kind: str, file_id: bytes = b"") -> bytes:
    """256 bits for one purpose, which tell nothing of the store's key or of another purpose's."""
    assert len(store_key) == KEY_BYTES, "a store's key has 256 bits"
    return HKDF(SHA256(), KEY_BYTES, salt=file_id, info=f"sfumato store 3 {kind}".encode()).derive(store_key)


def store_key_name(store_key: bytes) -> str:
    """What tells a store's key from another one, and says nothing of it: 32 hexadecimal digits."""
    return derived_key(store_key, "name").hex()[:32]


def new_id() -> bytes:
    """The id of a new file."""
    return os.urandom(ID_BYTES)


def file_name(kind: str, file_id: bytes) -> str:
    """How the file of a kind and an id is called."""
    return f"{kind}-{file_id.hex()[:16]}"


class FileCipher:
    """Encrypts and decrypts the pieces of one file."""

    def __init__(self, store_key: bytes, kind: str, file_id: bytes) -> None:
        self._aead, self.file_id = AESGCM(derived_key(store_key, kind, file_id)), file_id

    def encrypt(self, place: int, data: bytes | memoryview) -> bytes:
        """Nonce, ciphertext and tag of `data`; `OVERHEAD` bytes longer."""
        assert place % LAST < MOST_PLACES, "a file has fewer places"
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, data, self._bound(place))

    def decrypt(self, place: int, encrypted: bytes | memoryview) -> bytes:
        """What was encrypted for `place`. Raises DataError for anything else."""
        try:
            return self._aead.decrypt(
                bytes(encrypted[:NONCE_BYTES]), bytes(encrypted[NONCE_BYTES:]), self._bound(place)
            )
        except (InvalidTag, ValueError):
            raise DataError(ALTERED) from None

    def decrypt_into(self, place: int, encrypted: memoryview, out: memoryview) -> None:
        """As `open`, into `out`, which has just the room. Raises DataError."""
        try:
            self._aead.decrypt_into(encrypted[:NONCE_BYTES], encrypted[NONCE_BYTES:], self._bound(place), out)
        except (InvalidTag, ValueError):
            raise DataError(ALTERED) from None

    def _bound(self, place: int) -> bytes:
        return self.file_id + place.to_bytes(8, "big")


def write_encrypted(folder: Path, kind: str, data: memoryview, store_key: bytes) -> bytes:
    """Write a file in pieces of a megabyte, of which the last one says that it is; its id."""
    file_id = new_id()
    cipher, path = FileCipher(store_key, kind, file_id), folder / file_name(kind, file_id)
    with room_errors(), os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        for place, at in enumerate(range(0, len(data), PIECE)):
            last = LAST if at + PIECE >= len(data) else 0
            stream.write(cipher.encrypt(place + last, data[at : at + PIECE]))
        stream.flush()
        os.fsync(stream.fileno())
    return file_id


def read_encrypted(folder: Path, kind: str, file_id: bytes, store_key: bytes) -> bytes:
    """What `write_encrypted` wrote. Raises DataError where it is gone, cut or altered."""
    try:
        encrypted = memoryview((folder / file_name(kind, file_id)).read_bytes())
    except OSError:
        raise DataError(ALTERED) from None
    cipher, step, data = FileCipher(store_key, kind, file_id), PIECE + OVERHEAD, bytearray()
    for place, at in enumerate(range(0, max(1, len(encrypted)), step)):
        last = LAST if at + step >= len(encrypted) else 0
        data += cipher.decrypt(place + last, encrypted[at : at + step])
    return bytes(data)


def authenticate(store_key: bytes, kind: str, data: bytes) -> str:
    """HMAC-SHA-256 of `data` for one purpose, as hexadecimal digits."""
    return hmac.digest(derived_key(store_key, kind), data, "sha256").hex()
