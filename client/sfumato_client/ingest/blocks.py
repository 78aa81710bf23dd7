"""A list that grows on the disk and not in memory: what is known of the images and rows of a set, however many.

Its file has no name and is AES-256-GCM under a key that this process alone has: nobody reads what a kill leaves of it.
"""

from __future__ import annotations

import json
import os
import tempfile
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

T = TypeVar("T")
_BLOCK, _OPEN = 64, 8  # values that are encrypted together; blocks that are kept open


class Blocks(Sequence[T], Generic[T]):
    """`words` makes JSON of a value, and `value` a value of that again; the file lies in `folder`, else where all do.

    Of 64 values eight bytes are in memory. It is read mostly in order: a value far off opens its block.
    """

    def __init__(self, words: Callable[[T], Any], value: Callable[[Any], T], folder: Path | None = None) -> None:
        self._words, self._value = words, value
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - it lives as long as the list
        self._cipher = AESGCM(AESGCM.generate_key(256))
        self._ends, self._last = array("q", [0]), list[Any]()
        self._near: OrderedDict[int, list[Any]] = OrderedDict()

    def append(self, value: T) -> None:
        """One more."""
        self._last.append(self._words(value))
        if len(self._last) < _BLOCK:
            return
        # a key of its own, and a block is written once: its number is no nonce that comes twice
        data = self._cipher.encrypt(self._nonce(len(self._ends) - 1), json.dumps(self._last).encode(), None)
        end = self._ends[-1]
        while data:
            written = os.pwrite(self._file.fileno(), data, end)
            end, data = end + written, data[written:]
        self._ends.append(end)
        self._last = []

    def __len__(self) -> int:
        return (len(self._ends) - 1) * _BLOCK + len(self._last)

    @overload
    def __getitem__(self, at: int) -> T: ...

    @overload
    def __getitem__(self, at: slice) -> list[T]: ...

    def __getitem__(self, at: int | slice) -> T | list[T]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(len(self)))]
        if not 0 <= at < len(self):
            raise IndexError("no such value in this list")
        return self._value(self._block(at // _BLOCK)[at % _BLOCK])

    def __iter__(self) -> Iterator[T]:
        for number in range(len(self._ends)):
            yield from map(self._value, self._block(number))

    def _block(self, number: int) -> list[Any]:
        if number == len(self._ends) - 1:
            return self._last
        if number in self._near:
            self._near.move_to_end(number)
            return self._near[number]
        begin, end = self._ends[number], self._ends[number + 1]
        data = os.pread(self._file.fileno(), end - begin, begin)
        found: list[Any] = json.loads(self._cipher.decrypt(self._nonce(number), data, None))
        self._near[number] = found
        if len(self._near) > _OPEN:
            self._near.popitem(last=False)
        return found

    @staticmethod
    def _nonce(number: int) -> bytes:
        return number.to_bytes(12, "big")
