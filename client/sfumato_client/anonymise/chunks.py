"""Rows that are computed at once, a chunk on every core at a time: how many memory allows, and nothing else.

A chunk is whole grains of rows, the last one filled up; the few images of one patient are one chunk as they are.
Products of whole grains give a row the same last bits however many grains there are and whatever stands in the other
rows; only its place within its grain may count, where rows are no multiple of a vector. So a result hangs neither on
memory nor on cores, nor on what the others of its batch are. On a processor every chunk has one thread, also where it
is the only one: two threads on one chunk wait for each other at every step, and give other last bits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from sfumato_common.memory import TILE, budget

GRAIN = TILE  # rows: with fewer, products take other paths
_MOST = 128  # rows of a chunk on a processor: with more, a gradient's products of 1,024 terms are split in other places
T = TypeVar("T")
R = TypeVar("R")
_local = threading.local()


def cores(device: torch.device) -> int:
    """How many chunks are computed at a time: the threads that this process may have, or one on an accelerator."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def rows_that_fit(row_bytes: int, device: torch.device) -> int:
    """Rows of that many bytes that a chunk may have, beside the others that are computed meanwhile: whole grains."""
    beside = cores(device) * getattr(_local, "beside", 1)
    grains = max(1, budget() // (max(1, row_bytes) * beside * GRAIN))
    return (min(grains, _MOST // GRAIN) if device.type == "cpu" else grains) * GRAIN


def rows_of_chunk(count: int, row_bytes: int, device: torch.device) -> int:
    """Rows of a chunk of `count`: as many as fit, and no more than leaves every core its part."""
    return min(rows_that_fit(row_bytes, device), whole_grains(-(-count // cores(device))))


def whole_grains(count: int) -> int:
    """The least number of whole grains that holds `count`, at least one."""
    return max(1, -(-count // GRAIN)) * GRAIN


def fill_up(rows: Tensor) -> Tensor:
    """Rows [N] and then copies of the first, until the last grain is whole."""
    return torch.cat([rows, rows[:1].expand(whole_grains(len(rows)) - len(rows))])


def on_all_cores(function: Callable[[T], R], parts: Sequence[T], device: torch.device) -> list[R]:
    """`function` of every part, in order, so many at a time as there are cores; nothing is drawn at random in it."""
    if cores(device) < 2:
        return [function(part) for part in parts]
    threads = max(1, min(cores(device), len(parts)))
    before, beside = torch.get_num_threads(), threads * getattr(_local, "beside", 1)

    def begin() -> None:
        torch.set_num_threads(1)
        _local.beside = beside

    try:
        with ThreadPoolExecutor(threads, "chunk", begin) as pool:
            return list(pool.map(function, parts))
    finally:
        torch.set_num_threads(before)  # a new thread takes over what any thread set last
