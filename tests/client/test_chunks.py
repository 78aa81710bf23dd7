"""Chunks of anonymisers: what memory and cores decide, and what they must not."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from sfumato_client.anonymise.chunks import cores, on_all_cores, rows_of_chunk, rows_that_fit
from sfumato_common.memory import TILE
from sfumato_common.rows import fill_up

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2])
def threads(request):
    """So many threads for torch, and what there was before."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_chunks_share_the_memory_and_are_whole_tiles(threads, monkeypatch):
    monkeypatch.setenv("SFUMATO_MEMORY", "96000")
    assert cores(CPU) == threads
    assert rows_that_fit(1000, CPU) == {1: 96, 2: 48}[threads]
    assert rows_that_fit(10**9, CPU) == TILE
    assert rows_of_chunk(1000, 1000, CPU) == {1: 96, 2: 48}[threads]
    assert rows_of_chunk(30, 1000, CPU) == {1: 32, 2: 16}[threads]
    assert on_all_cores(lambda _: rows_that_fit(1000, CPU), [0, 1], CPU) == [{1: 96, 2: 48}[threads]] * 2


def test_a_rows_bits_hang_on_no_count_of_tiles():
    """Both products of a linear layer, there and back; without MKL's strict mode one of 1,024 terms differs at 192."""
    most, before, generator = 512, torch.get_num_threads(), torch.Generator().manual_seed(0)
    torch.set_num_threads(1)
    try:
        for wide, narrow in ((3, 2), (512, 40), (1024, 256), (2048, 1000)):
            rows, weight = torch.randn(most, wide, generator=generator), torch.randn(narrow, wide, generator=generator)
            backward = weight.T.contiguous()
            for product in (lambda x, by=weight: x @ by.T, lambda x, by=backward: x @ by):
                alone = product(rows[:TILE])
                for count in range(2 * TILE, most + 1, TILE):
                    assert torch.equal(product(rows[:count])[:TILE], alone)
    finally:
        torch.set_num_threads(before)


def test_the_last_tile_is_filled_with_the_first_row():
    assert fill_up(torch.arange(16, 21)).tolist() == [*range(16, 21), *[16] * (TILE - 5)]
    assert fill_up(torch.arange(TILE)).tolist() == list(range(TILE))


def test_every_part_has_one_thread_and_results_come_in_order(threads):
    seen = []

    def work(part):
        time.sleep(0.01 * (4 - part))
        seen.append((torch.get_num_threads(), threading.current_thread()))
        return part * 10

    for parts in ([0, 1, 2, 3], [3]):
        assert on_all_cores(work, parts, CPU) == [part * 10 for part in parts]
    assert {count for count, _ in seen} == {1}
    assert len({thread for _, thread in seen}) == {1: 1, 2: 3}[threads]
    assert torch.get_num_threads() == threads
    assert on_all_cores(work, [], CPU) == []


def test_what_fails_in_a_part_is_raised_and_the_threads_are_given_back(threads):
    with pytest.raises(ZeroDivisionError):
        on_all_cores(lambda part: 1 // part, [1, 0, 1], CPU)
    assert torch.get_num_threads() == threads
