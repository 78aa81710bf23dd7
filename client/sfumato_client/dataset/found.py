"""Tokens in columns that are found by halving: 28 bytes each, where a dictionary of them takes some 300."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from sfumato_client.dataset.splits import NOT_GIVEN, SPLITS
from sfumato_client.dataset.tokens import TOKEN_BYTES
from sfumato_client.ingest import Split

Tokens = npt.NDArray[np.uint8]


class Found(Collection[str]):
    """Tokens [n, 16] as hexadecimal digits, and the number of each; of equal ones the last counts."""

    def __init__(self, tokens: Tokens) -> None:
        self._words = np.ascontiguousarray(tokens).view(np.uint64).reshape(-1, 2)
        self._order = np.argsort(self._words[:, 0], kind="stable").astype(np.uint32)
        self._first = self._words[self._order, 0]

    def of(self, token: str) -> int | None:
        """The number of a token; None of one that is not in the list."""
        words = np.frombuffer(bytes.fromhex(token), np.uint64)
        # of 64 bits hardly two have the same
        at = int(np.searchsorted(self._first, words[0], side="right")) - 1
        while at >= 0 and self._first[at] == words[0]:
            number = int(self._order[at])
            if self._words[number, 1] == words[1]:
                return number
            at -= 1
        return None

    def __contains__(self, token: object) -> bool:
        return isinstance(token, str) and len(token) == 2 * TOKEN_BYTES and self.of(token) is not None

    def __iter__(self) -> Iterator[str]:
        return (words.tobytes().hex() for words in self._words)

    def __len__(self) -> int:
        return len(self._words)


class SplitOf(Mapping[str, Split]):
    """The split of each of `tokens` [n, 16], by the number of one in `splits` [n]; those of `NOT_GIVEN` have none."""

    def __init__(self, tokens: Tokens, splits: npt.NDArray[np.uint8]) -> None:
        given = splits != NOT_GIVEN
        self._found, self._splits = Found(tokens[given]), splits[given]

    def __getitem__(self, token: str) -> Split:
        number = self._found.of(token)
        if number is None:
            raise KeyError(token)
        return SPLITS[int(self._splits[number])]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)
