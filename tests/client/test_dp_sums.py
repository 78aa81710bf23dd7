"""Roundings of clipped sums stay inside what the noise is scaled to, however many places a batch has."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sfumato_client.training.dp import contract
from sfumato_client.training.dp.contract import BLOCK, CHUNK_ROWS, add_clipped, double_zeros, weighted_sum
from sfumato_client.training.dp.engines import ENGINES
from sfumato_common.errors import EgressRefused
from sfumato_common.mechanisms.recorder import FLOAT32_SLACK

PLACES = (128, 4_000, 20_000, 100_000)
# n(n + 1)/2 - 1 for the additions in any order, n for the products, each with 2^-24 of what was added up so far
BLOCK_ERROR = (BLOCK * (BLOCK + 1) / 2 - 1 + BLOCK) * 2.0**-24


def batches(places: int, seed: int):
    """Gradients [places] of norm at most 1 that float32 sums round: of one sign, equal or not, small after large."""
    rng = np.random.default_rng(seed)
    yield np.full(places, rng.uniform(0.5, 1.0))
    yield rng.uniform(0.9, 1.0, places)
    yield np.where(np.arange(places) % BLOCK == 0, 1.0, 2.0**-13 * rng.uniform(1.0, 2.0, places))
    yield np.sort(rng.uniform(0.0, 1.0, places))[::-1].copy()


def moves(summed, places: int, repetitions: int) -> list[float]:
    """How far a patient of norm 1 moves the sum: in a random place, and where a batch that is full hands one on."""
    found = []
    for seed in range(repetitions):
        rng = np.random.default_rng(seed)
        for values in batches(places, seed):
            x = torch.from_numpy(values.astype(np.float32))
            place = int(rng.integers(places))
            with_one, without = x.clone(), x.clone()
            with_one[place], without[place] = 1.0, 0.0
            found.append(abs(summed(with_one) - summed(without)))
            # the batch was full: the one who stood there goes to a place of a second batch, alone
            second = torch.zeros_like(x)
            second[int(rng.integers(places))] = x[place]
            found.append(abs(summed(with_one) + summed(second) - summed(x)))
    return found


def in_blocks(x: torch.Tensor) -> float:
    (total,) = double_zeros([x[:1]])
    assert total.dtype == torch.float64
    add_clipped([total], [x[:, None]], 1.0)
    return float(total)


def in_float32(x: torch.Tensor) -> float:
    """As it was done before: chunks added up in float32."""
    total = torch.zeros(1)
    for part in torch.split(x[:, None], CHUNK_ROWS):
        total += weighted_sum(part, torch.ones(len(part)))
    return float(total)


@pytest.mark.parametrize("places", PLACES)
def test_one_patient_moves_the_sum_by_the_clipping_norm_and_the_slack_at_most(places):
    assert max(moves(in_blocks, places, 8 if places < 100_000 else 3)) <= 1.0 + FLOAT32_SLACK


@pytest.mark.parametrize("ranks", [2, 3, 8])
@pytest.mark.parametrize("places", PLACES[:3])
def test_so_does_the_sum_that_ranks_add_up(places, ranks):
    def shared(x: torch.Tensor) -> float:
        part = -(-len(x) // ranks)
        return float(sum(torch.tensor(in_blocks(own), dtype=torch.float64) for own in torch.split(x, part)))

    assert max(moves(shared, places, 8)) <= 1.0 + FLOAT32_SLACK


def test_adding_up_the_ranks_is_far_inside_what_the_slack_leaves():
    # float64 sums of at most a million places of norm 1 by 64 ranks, in any order, with and without the patient
    assert 4 * BLOCK_ERROR + 2.0**-20 + 2 * 63 * 2.0**-53 * 1e6 <= FLOAT32_SLACK


def test_sums_in_float32_alone_would_leave_the_slack():
    assert max(moves(in_float32, 128, 8)) <= 1.0 + FLOAT32_SLACK < max(moves(in_float32, 20_000, 8))


def test_a_block_is_off_by_its_bound_at_most_and_four_blocks_fit_the_slack():
    worst = 0.0
    for seed in range(200):
        for values in batches(BLOCK, seed):
            x = torch.from_numpy(values.astype(np.float32))
            worst = max(worst, abs(in_blocks(x) - float(x.double().sum())))
    assert 0.0 < worst <= BLOCK_ERROR
    # a patient more or less changes one block, and where another batch begins a second one: each before and after; the
    # rest is for factors of the clip, which are rounded to 2^-24 of theirs
    assert 4 * BLOCK_ERROR + 2.0**-20 <= FLOAT32_SLACK
    assert CHUNK_ROWS <= BLOCK


class Value(nn.Module):
    """Its one parameter's gradient is the record."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(1, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.one(x)[:, 0]


@pytest.mark.parametrize("name", [name for name in ENGINES if name != "vmap-compiled"])
def test_every_engine_adds_up_so(name):
    engine = ENGINES[name](Value(), lambda forward, x: forward(x))
    places = 4_000 if name == "loop" else 20_000

    def summed(x: torch.Tensor) -> float:
        (total,) = engine.clipped_sum([x[:, None]], 1.0)
        assert total.dtype == torch.float64
        return float(total)

    x = torch.from_numpy(np.random.default_rng(0).uniform(0.9, 1.0, places).astype(np.float32))
    exact = float(x.double().sum())
    assert abs(summed(x) - exact) < 0.1 * abs(in_float32(x) - exact), "blocks are added up in float64"
    without = x.clone()
    without[places // 3] = 0.0
    assert abs(summed(x) - summed(without)) <= 1.0 + FLOAT32_SLACK


def test_more_patients_than_a_block_are_never_added_up_in_float32():
    with pytest.raises(EgressRefused, match="float32"):
        contract.weighted_sum(torch.ones(BLOCK + 1, 1), torch.ones(BLOCK + 1))
