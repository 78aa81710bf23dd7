"""Looking for canaries in decoded traffic: a pass of hashed windows over it, whatever the number of needles.

Counts are looked for where a number is a number: as a word of a text, as a field of a protocol buffer, as an element of
an array of 32 bits or more. Chance level, for 18 counts of three digits and 10 MB of decoded layers: a word needs 16
printable bytes in a row around it, (95/256)^13 / 256^3 = 2e-13 a place in random bytes, 4e-5 in all (digests in
hexadecimal and base64 hold none: a digit, a letter, '+', '/' and '_' end no word); a float32 between 100 and 330 is one
of the counts with 18 x 2^-16 / 230 = 1e-6, 1e-4 in all for a hundred such elements. What is no chance is left out by
rule: lengths that the readers check (`_FRAMING`), and grey values, whose smooth runs spell digits (`Layer.kind`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from support.traffic.canaries import SHORTEST, Bytes, Canaries
from support.traffic.layers import Layer, fields

_SHARD = 1 << 20
_BITS = 22
_MIX = np.uint64(0x9E3779B97F4A7C15)
# lengths that the readers of HTTP and of Flower's objects hold against what follows: they are no messages
_FRAMING = re.compile(rb"(?i:content-length: *)\d+(?=\r\n)|[A-Z][A-Za-z]+ [0-9a-f,]* \d+(?=\0)")
_PRINTABLE = re.compile(rb"[\x20-\x7e\t\r\n]{16,}")

SEVERAL = "several sites"
Key = TypeVar("Key")
Words = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Hit:
    """A canary that left: what it is, and the layer and offset where it stands. Never the bytes themselves."""

    what: str
    layer: str
    offset: int


class Needles:
    """Byte strings of `window` bytes or more (8, 16 or 32), found by a hash of their first `window` bytes."""

    def __init__(self, blocks: Iterable[tuple[str, Bytes]], window: int) -> None:
        self._window = window
        self._names: list[str] = []
        self._blocks: list[Bytes] = []
        for what, block in blocks:
            assert block.shape[1] >= window
            self._names.append(what)
            self._blocks.append(block)
        sizes = [len(block) for block in self._blocks]
        starts = [np.ascontiguousarray(block[:, :window]).view("<u8") for block in self._blocks]
        keys = _mixed(list(np.concatenate(starts).T)) if starts else np.zeros(0, np.uint64)
        row = np.concatenate([np.arange(size) for size in sizes]) if sizes else np.zeros(0, np.int64)
        order = np.argsort(keys, kind="stable")
        self._keys, self._row = keys[order], row[order]
        self._group = np.repeat(np.arange(len(sizes)), sizes)[order]
        self._known = np.zeros(1 << _BITS, dtype=np.bool_)
        self._known[_slot(self._keys)] = True

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, data: bytes) -> Iterator[tuple[str, int]]:
        """(what, offset) of every needle in `data`."""
        last = len(data) - self._window + 1
        for start in range(0, last, _SHARD):
            count = min(_SHARD, last - start)
            places = range(start, start + self._window, 8)
            keys = _mixed([np.ndarray((count,), "<u8", data, place, (1,)) for place in places])
            near = np.flatnonzero(self._known[_slot(keys)])
            low = np.searchsorted(self._keys, keys[near], "left")
            high = np.searchsorted(self._keys, keys[near], "right")
            hits = low < high
            for at, begin, end in zip(near[hits], low[hits], high[hits], strict=True):
                yield from self._compare(data, start + int(at), range(int(begin), int(end)))

    def _compare(self, data: bytes, at: int, entries: range) -> Iterator[tuple[str, int]]:
        for entry in entries:
            needle = self._blocks[self._group[entry]][self._row[entry]].tobytes()
            if data.startswith(needle, at):
                yield self._names[self._group[entry]], at


def _mixed(windows: Sequence[Words]) -> Words:
    """One 64-bit key of 8-byte windows that stand beside each other (multiply-shift hashing)."""
    total = np.zeros(len(windows[0]), np.uint64)
    for window in windows:
        total = (total ^ window) * _MIX
        total ^= total >> np.uint64(29)
    return total


def _slot(keys: Words) -> Words:
    return keys >> np.uint64(64 - _BITS)


def _by_window(blocks: Iterable[tuple[str, Bytes]]) -> list[Needles]:
    """Needles sorted out by the longest window that they fill: a long one must not hang on 8 bytes of background."""
    given = [(what, block) for what, block in blocks if len(block)]
    widths: dict[int, list[tuple[str, Bytes]]] = {window: [] for window in (32, 16, SHORTEST)}
    for what, block in given:
        widths[next(window for window in widths if block.shape[1] >= window)].append((what, block))
    return [Needles(members, window) for window, members in widths.items() if members]


def _merge(into: dict[Key, str], more: dict[Key, str]) -> None:
    """Add canaries; one that several sites have is named so."""
    for key, what in more.items():
        into[key] = f"{SEVERAL}: {what.partition(': ')[2]}" if key in into else what


class Scanner:
    """All canaries of a study, ready to be looked for in layers."""

    def __init__(self, canaries: Iterable[Canaries]) -> None:
        every = list(canaries)
        texts: dict[bytes, str] = {}
        self.counts: dict[int, str] = {}
        for item in every:
            _merge(texts, item.texts)
            _merge(self.counts, item.counts)
        self._texts = _by_window((what, np.frombuffer(text, np.uint8)[None]) for text, what in texts.items())
        self._exact = _by_window(block for item in every for block in item.blocks)
        words = "|".join(map(str, sorted(self.counts))) or "(?!)"
        self._word = re.compile(
            rf"(?<![0-9A-Za-z+/_])(?<![0-9][.:,-])({words})(?:\.0+)?(?![0-9A-Za-z+/_])(?![.:,-][0-9])".encode()
        )

    def __len__(self) -> int:
        return sum(map(len, self._texts + self._exact)) + len(self.counts)

    def scan(self, layer: Layer) -> Iterator[Hit]:
        """Every canary in one layer."""
        for needles, data in ((self._texts, layer.data.lower()), (self._exact, layer.data)):
            for some in needles:
                yield from (Hit(what, layer.name, offset) for what, offset in some.find(data))
        if self.counts and layer.kind != "pixels":
            yield from self._words(layer)
            yield from self._numbers(layer)

    def _words(self, layer: Layer) -> Iterator[Hit]:
        data = _FRAMING.sub(lambda match: b"#" * len(match[0]), layer.data)
        runs = [(0, data)] if layer.kind == "text" else _runs(data)
        for start, run in runs:
            for match in self._word.finditer(run):
                yield Hit(f"{self.counts[int(match[1])]}, as text", layer.name, start + match.start(1))

    def _numbers(self, layer: Layer) -> Iterator[Hit]:
        if layer.kind == "message":
            for value, offset in fields(layer.data):
                text = isinstance(value, bytes) and value.isdigit() and len(value) < 10
                if (text or not isinstance(value, bytes)) and (what := self.counts.get(int(value))) is not None:
                    yield Hit(f"{what}, as a field", layer.name, offset)
        if layer.array is not None and layer.array.dtype.kind in "iuf" and layer.array.dtype.itemsize >= 4:
            flat = layer.array.ravel()
            for place in np.flatnonzero(np.isin(flat, np.array(sorted(self.counts), dtype=flat.dtype))):
                yield Hit(f"{self.counts[int(flat[place])]}, as an element", layer.name, int(place))


def _runs(data: bytes) -> Iterator[tuple[int, bytes]]:
    return ((match.start(), match[0]) for match in _PRINTABLE.finditer(data))
