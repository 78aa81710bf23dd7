"""A journal of encrypted records, of which a kill costs the last one at most: what an ingest has read so far.

A head as that of the pixels, then records: four bytes that say how long it is, nonce, ciphertext, tag. Each is bound to
its number, so that a record that is missing, repeated or of another journal ends what counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sfumato_client.dataset.encryption import FileCipher
from sfumato_common.crypto.pieces import ID_BYTES, new_id
from sfumato_common.errors import DataError

JOURNAL = "journal"
_MARK = b"SFUJRN3\n"
_HEAD = len(_MARK) + ID_BYTES
_LENGTH = 4


class Journal:
    """A new journal at `path`, or one that goes on after the records that `read_journal` gave.

    `after` is the number of those records and of the bytes up to their end; (0, 0) begins anew.
    """

    def __init__(self, path: Path, store_key: bytes, after: tuple[int, int] = (0, 0)) -> None:
        self._count, end = after
        self._stream = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        head = self._stream.read(_HEAD) if end else _MARK + new_id()
        self._stream.truncate(end)
        self._stream.seek(end)
        if not end:
            self._stream.write(head)
        self._cipher = FileCipher(store_key, JOURNAL, head[len(_MARK) :])

    def append(self, value: Any) -> None:
        """Write one more record and hand it to the system."""
        encrypted = self._cipher.encrypt(self._count, json.dumps(value, separators=(",", ":")).encode())
        self._stream.write(len(encrypted).to_bytes(_LENGTH, "big") + encrypted)
        self._stream.flush()
        self._count += 1

    def sync(self) -> None:
        """Have it on the disk."""
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def read_journal(path: Path, store_key: bytes) -> Iterator[tuple[Any, int]]:
    """The records at `path` that are whole, each with the number of bytes up to its end; none under another key."""
    try:
        stream = path.open("rb")
    except OSError:
        return
    with stream:
        head = stream.read(_HEAD)
        if len(head) < _HEAD or not head.startswith(_MARK):
            return
        cipher, number, end = FileCipher(store_key, JOURNAL, head[len(_MARK) :]), 0, _HEAD
        while length := int.from_bytes(stream.read(_LENGTH), "big"):
            encrypted = stream.read(length)
            try:
                value = json.loads(cipher.decrypt(number, encrypted))
            except (DataError, ValueError):
                return
            number, end = number + 1, end + _LENGTH + length
            yield value, end
