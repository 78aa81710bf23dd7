"""Rows that are computed at once, a chunk on every core at a time: how many memory allows, and nothing else.

A chunk is whole tiles of rows, the last one filled up; the few images of one patient are one chunk as they are.
Products of whole tiles, also those of gradients, give a row the same last bits however many tiles a chunk has and
whatever stands in the other rows; only its place within its tile may count. So a result hangs neither on memory nor on
cores, nor on what the others of its batch are (see `memory`). On a processor every chunk has one thread,
also where it is the only one: two threads on one chunk wait for each other at every step, and give other last bits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from sfumato_common.memory import TILE, budget, whole_tiles

T = TypeVar("T")
R = TypeVar("R")
_local = threading.local()


def cores(device: torch.device) -> int:
    """How many chunks are computed at a time: the threads that this process may have, or one on an accelerator."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def rows_that_fit(row_bytes: int, device: torch.device) -> int:
    """Rows of that many bytes that a chunk may have, beside the others that are computed meanwhile: whole tiles."""
    beside = cores(device) * getattr(_local, "beside", 1)
    return max(1, budget() // (max(1, row_bytes) * beside * TILE)) * TILE


def rows_of_chunk(count: int, row_bytes: int, device: torch.device) -> int:
    """Rows of a chunk of `count`: as many as fit, and no more than leaves every core its part."""
    return min(rows_that_fit(row_bytes, device), whole_tiles(-(-count // cores(device))))


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
