"""What an attacker does to a Mersenne Twister (MT19937; Matsumoto and Nishimura 1998): linear algebra over GF(2).

Every bit of every output is a sum of bits of the state. So some 20,000 bits of outputs, whichever are known, give the
state, and the state gives all outputs before and after. Bits of a stream that is no Mersenne Twister contradict each
other instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

STATE, MIDDLE, RANK = 624, 397, 19_937  # words of the state; of its bits 31 are never looked at
BITS = 32 * STATE
PACKED = BITS // 64
TWIST, UPPER, LOWER = 0x9908B0DF, 0x80000000, 0x7FFFFFFF
TEMPERING = ((-11, 0xFFFFFFFF), (7, 0x9D2C5680), (15, 0xEFC60000), (-18, 0xFFFFFFFF))
COLUMNS, ROWS = 16, 128  # columns that are eliminated at a time, and rows, which then stay in the cache
_STATE_OFFSET = 24  # of the words in torch's state


def equations(outputs: int, bits: Sequence[int]) -> np.ndarray:
    """Which state bits add up to each of `bits` of outputs 0 .. `outputs` - 1: uint64 [outputs * len(bits), PACKED]."""
    blocks = [_tempered(block)[:, list(bits)] for block in _words(outputs)]
    return np.concatenate(blocks).reshape(-1, PACKED)


def _words(count: int) -> Iterator[np.ndarray]:
    """Words that follow the state, before tempering, bit by bit as sums of the state's bits: [k, 32, PACKED] each."""
    last = np.packbits(np.eye(BITS, dtype=np.uint8), axis=1, bitorder="little").view(np.uint64)
    last = last.reshape(STATE, 32, PACKED)
    twisted = [bit for bit in range(32) if TWIST >> bit & 1]
    while count > 0:
        few = min(STATE - MIDDLE, count)
        new = last[MIDDLE : MIDDLE + few].copy()
        new[:, :30] ^= last[1 : few + 1, 1:31]
        new[:, 30] ^= last[:few, 31]
        new[:, twisted] ^= last[1 : few + 1, :1]
        yield new
        last, count = np.concatenate([last[few:], new]), count - few


def _tempered(words: np.ndarray) -> np.ndarray:
    for left, mask in TEMPERING:
        before, words = words, words.copy()
        for bit in range(max(0, left), min(32, 32 + left)):
            if mask >> bit & 1:
                words[:, bit] ^= before[:, bit - left]
    return words


def states_behind(system: np.ndarray, answers: np.ndarray) -> list[list[int] | None]:
    """For each column of answers [R, A] (0 or 1) to equations [R, PACKED] the state's 624 words, None if they disagree.

    All columns cost one elimination. Raises AssertionError when there are too few equations to tell.
    """
    packed = (answers.astype(np.uint64) << np.arange(answers.shape[1], dtype=np.uint64)).sum(axis=1, dtype=np.uint64)
    rows = np.column_stack([system, packed])
    pivots = _eliminate(rows)
    assert len(pivots) == RANK, "too few equations"
    left = np.bitwise_or.reduce(rows[len(pivots) :, -1])
    columns = range(answers.shape[1])
    return [None if int(left) >> column & 1 else _substituted(rows, pivots, column) for column in columns]


def _eliminate(rows: np.ndarray) -> list[int]:
    """Rows brought to echelon form in place, 16 columns at a time (Method of Four Russians); the pivots' columns."""
    lanes, pivots = rows.view(np.uint16), []
    for lane in range(BITS // COLUMNS):
        rest, active = len(pivots), rows[:, lane * COLUMNS // 64 :]
        found: list[int] = []
        own = lanes[rest:, lane].copy()  # as they become when the pivots found are added to them
        for bit in range(COLUMNS):
            here = len(found)
            hits = np.flatnonzero(own[here:] >> bit & 1)
            if not len(hits):
                continue
            swapped = [here + hits[0], here]
            own[swapped], active[rest:][swapped] = own[swapped[::-1]], active[rest:][swapped[::-1]]
            pivot = active[rest + here]
            for row, earlier in enumerate(found, rest):
                if lanes[rest + here, lane] >> earlier & 1:
                    pivot ^= active[row]
            for row in range(rest, rest + here):
                if lanes[row, lane] >> bit & 1:
                    active[row] ^= pivot
            later = own[here + 1 :]
            later[(later >> bit & 1) == 1] ^= lanes[rest + here, lane]
            found.append(bit)
        _add_to_others(active[rest:], lanes[rest + len(found) :, lane], found)
        pivots += [lane * COLUMNS + bit for bit in found]
    return pivots


def _add_to_others(active: np.ndarray, below: np.ndarray, found: list[int]) -> None:
    """Clear the pivots' bits `found` in all rows after theirs, the first of `active`, by tables of their sums."""
    tables = []
    for start in (0, COLUMNS // 2):
        sums, index = np.zeros((1, active.shape[1]), np.uint64), np.zeros(len(below), np.intp)
        for place, row in enumerate(range(start, min(start + COLUMNS // 2, len(found)))):
            sums = np.concatenate([sums, sums ^ active[row]])
            index |= (below >> found[row] & 1).astype(np.intp) << place
        tables.append((sums, index))
    taken = np.empty((ROWS, active.shape[1]), np.uint64)
    for first in range(0, len(below), ROWS):
        part = active[len(found) + first :][:ROWS]
        for sums, index in tables:
            part ^= np.take(sums, index[first : first + ROWS], axis=0, out=taken[: len(part)], mode="clip")


def _substituted(rows: np.ndarray, pivots: list[int], column: int) -> list[int]:
    state = np.zeros(PACKED, np.uint64)
    for row, pivot in zip(rows[: len(pivots)][::-1], pivots[::-1], strict=True):
        bit = (int(row[-1]) >> column) + int(np.bitwise_count(row[:-1] & state).sum()) & 1
        state[pivot // 64] |= np.uint64(bit << pivot % 64)
    return state.view("<u4").tolist()


def earlier(state: list[int], steps: int) -> list[int]:
    """The state `steps` outputs before `state`."""

    def undone(word: int) -> int:
        return ((word ^ TWIST) << 1 | 1) & 0xFFFFFFFF if word & UPPER else word << 1

    seam = state[0] & UPPER | state[1] & LOWER
    words = [*[0] * steps, *state, state[MIDDLE] ^ seam >> 1 ^ (TWIST if seam & 1 else 0)]
    for place in range(steps, -1, -1):
        upper = undone(words[place + STATE] ^ words[place + MIDDLE]) & UPPER
        words[place] = upper | undone(words[place + STATE - 1] ^ words[place + MIDDLE - 1]) & LOWER
    return words[:STATE]


def generator_with(state: list[int]) -> torch.Generator:
    """A torch.Generator whose next output is the first after `state`."""
    generator = torch.Generator().manual_seed(0)
    whole = generator.get_state().numpy().copy()
    whole[_STATE_OFFSET : _STATE_OFFSET + 8 * STATE] = np.array(state, dtype="<u8").view(np.uint8)
    generator.set_state(torch.from_numpy(whole))
    return generator


def outputs_of(draw: Callable[[torch.Generator], object], longest: int = 100_000) -> int:
    """How many outputs `draw` takes from a torch.Generator, which an attacker counts on one of their own."""
    used = torch.Generator().manual_seed(1)
    draw(used)
    after, raw = torch.rand(4, generator=used), torch.rand(longest, generator=torch.Generator().manual_seed(1))
    (found,) = torch.nonzero((raw.unfold(0, 4, 1) == after).all(dim=1)).flatten().tolist()
    return found
