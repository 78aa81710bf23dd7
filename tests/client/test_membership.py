"""Membership attacks: they find what is planted, and nothing where there is nothing to find."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato_client.audit.attacks.intervals import share_interval
from sfumato_client.audit.attacks.membership import group_membership, record_membership

SIZE = 24


def pictures(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    phase = rng.uniform(0, 6, (4, count, 1, 1))
    waves = np.sin(7 * down + phase[0]) + np.cos(9 * across + phase[1]) + np.sin(5 * (down + across) + phase[2])
    return np.clip(128 + 35 * waves + rng.normal(0, 4, waves.shape), 0, 255).astype(np.uint8)


def test_copies_are_found_and_strangers_are_not():
    members, outsiders = pictures(120, 1), pictures(120, 2)
    noise = np.random.default_rng(3).normal(0, 5, members.shape)
    copies = np.clip(members + noise, 0, 255).astype(np.uint8)
    told = record_membership(members, outsiders, copies, np.random.default_rng(0))
    assert told.auc > 0.99
    assert told.found_at[0.01][0] > 0.9
    assert told.control_interval[0] < 0.5 < told.control_interval[1]
    blind = record_membership(members, outsiders, pictures(120, 4), np.random.default_rng(0))
    assert blind.interval[0] < 0.5 < blind.interval[1]
    assert blind.found_at[0.01][1][0] < 0.05


def test_the_own_groups_image_is_found_where_it_is_like_its_members_only():
    members = pictures(100, 1)
    groups = np.arange(100) // 5
    averages = np.stack([members[groups == g].mean(axis=0) for g in range(20)]).astype(np.uint8)
    told = group_membership(members, groups, averages, top=1)
    assert told.interval[0] > told.chance == pytest.approx(0.05)
    strangers = group_membership(members, groups, pictures(20, 9), top=1)
    assert strangers.interval[0] < strangers.chance < strangers.interval[1]
    assert group_membership(members, groups, pictures(20, 9), top=20).share == 1.0


def test_likeness_to_every_image_alike_is_worth_no_more_than_chance():
    released = np.repeat(pictures(1, 3), 40, axis=0)
    told = group_membership(pictures(40, 1), np.arange(40), released, top=5)
    assert told.share == 0.0, "half of all ties are ahead"


def test_intervals_are_clopper_and_pearsons():
    assert share_interval(0, 10) == (0.0, pytest.approx(0.3085, abs=1e-4))
    assert share_interval(10, 10) == (pytest.approx(0.6915, abs=1e-4), 1.0)
    assert share_interval(5, 10) == (pytest.approx(0.1871, abs=1e-4), pytest.approx(0.8129, abs=1e-4))


def test_too_few_to_attack_is_an_error():
    with pytest.raises(ValueError, match="two members"):
        record_membership(pictures(1, 1), pictures(5, 2), pictures(5, 3), np.random.default_rng(0))
