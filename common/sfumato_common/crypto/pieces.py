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

import os
from collections.abc import Iterable
from typing import BinaryIO

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


def derived_key(store_key: bytes, kind: str, file_id: bytes = b"") -> bytes:
    """256 bits for one purpose, which tell nothing of the store's key or of another purpose's."""
    assert len(store_key) == KEY_BYTES, "a store's key has 256 bits"
    return HKDF(SHA256(), KEY_BYTES, salt=file_id, info=f"sfumato store 3 {kind}".encode()).derive(store_key)


def new_id() -> bytes:
    """The id of a new file."""
    return os.urandom(ID_BYTES)


class PieceCipher:
    """Encrypts and decrypts the pieces of one file; `altered` is said of one that does not open."""

    altered = "an encrypted file was altered or damaged, or is of another key"

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
            raise DataError(self.altered) from None

    def decrypt_all(self, whole: memoryview, places: Iterable[int], first: int, out: memoryview, size: int) -> None:
        """What was encrypted for each of `places`, each of `size` bytes, one behind the other into `out`.

        `whole` has all pieces of the file, of one length, from `first` on. Raises DataError. One call for all of them:
        of an image of 28 px a call for each would be a good part of the time.
        """
        open_into, file_id, step, at = self._aead.decrypt_into, self.file_id, size + OVERHEAD, 0
        try:
            for place in places:
                start = first + place * step
                behind, bound = start + NONCE_BYTES, file_id + place.to_bytes(8, "big")
                open_into(whole[start:behind], whole[behind : start + step], bound, out[at : at + size])
                at += size
        except (InvalidTag, ValueError):
            raise DataError(self.altered) from None

    def _bound(self, place: int) -> bytes:
        return self.file_id + place.to_bytes(8, "big")


class Pieces:
    """Takes bytes and writes them to `stream`, encrypted in pieces of a megabyte; the last one says that it is."""

    def __init__(self, stream: BinaryIO, cipher: PieceCipher) -> None:
        self._stream, self._cipher = stream, cipher
        self._waiting, self._place = bytearray(), 0

    def write(self, data: bytes | memoryview) -> int:
        """Take bytes; the stream has them all after `finish`."""
        self._waiting += data
        with room_errors():
            while len(self._waiting) > PIECE:  # and not at just so many: the last piece is to be told from others
                self._piece(PIECE, 0)
        return len(data)

    def finish(self) -> None:
        """Write the last piece."""
        with room_errors():
            self._piece(len(self._waiting), LAST)

    def _piece(self, size: int, last: int) -> None:
        self._stream.write(self._cipher.encrypt(self._place + last, bytes(self._waiting[:size])))
        del self._waiting[:size]
        self._place += 1
