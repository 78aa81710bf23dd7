"""Chunks by memory: the budget decides how many rows are computed at once, and nothing of what comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sfumato_common import memory, rows
from sfumato_common.errors import ConfigError
from sfumato_common.generators.appearance.feature_map import AppearanceLayout
from sfumato_common.generators.appearance.features import features_of
from sfumato_common.generators.appearance.fit import fit_appearance
from sfumato_common.generators.gan.networks import generator
from sfumato_common.generators.sampling import sample_images
from sfumato_common.generators.spectral.local import fit_spectral
from sfumato_common.generators.spectral.release import noised_moments
from sfumato_common.generators.spectral.sums import patient_weights
from sfumato_common.generators.weights import to_arrays
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.metrics.features import random_features
from sfumato_common.metrics.network import fit_network
from sfumato_common.phantom import arrays
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan

SMALL, LARGE = "1", "64GiB"


@pytest.mark.parametrize(("text", "size"), [("4GiB", 2**32), ("500M", 500 * 2**20), ("1.5k", 1536), ("77", 77)])
def test_sizes(text: str, size: int) -> None:
    assert memory.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "lots", "-1G", "0"])
def test_what_is_no_size_is_said_so(text: str) -> None:
    with pytest.raises(ConfigError, match="--memory"):
        memory.parse_size(text)


def test_a_control_group_counts_where_it_is_tighter_than_the_machine(tmp_path: Path) -> None:
    system = tmp_path / "meminfo"
    system.write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    assert memory.free_bytes(system, tmp_path) == 8000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("100\n")
    assert memory.free_bytes(system, tmp_path) == 8000 * 1024
    (tmp_path / "memory.max").write_text("5000\n")
    assert memory.free_bytes(system, tmp_path) == 4900


def test_rows_follow_the_budget_in_whole_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(memory.VARIABLE, "1000")
    assert memory.rows_at_once(10, 1000) == 96
    assert memory.rows_at_once(10, 20) == 32
    assert memory.rows_at_once(10_000, 20) == memory.TILE
    assert memory.rows_at_once(10, 1000, most=500) == 48
    assert memory.rows_at_once(10, 1000, most=5000) == 96, "nor more than memory has"


def test_a_row_counts_what_its_operations_make() -> None:
    layer = torch.nn.Conv2d(1, 4, 3, padding=1)
    found = rows.row_bytes(lambda x: layer(x).relu(), torch.zeros(3, 1, 16, 16))
    assert 2 * 4 * 256 * 4 <= found <= 3 * 4 * 256 * 4


def _plan(size: int, channels: int) -> Plan:
    value = {
        "study": "small",
        "image": {"size": size, "channels": channels},
        "labels": ["normal", "diseased"],
        "sites": {"alder": {"nominal_patients": 40}},
        "privacy": {"epsilon": 50.0, "delta": 1e-5},
        "stages": [
            {"kind": "spectral", "bandwidth": 8, "clip_radius": 4.0, "noise_multiplier": 1.0},
            {
                "kind": "gan", "rounds": 1, "local_steps": 1, "sampling_rate": 0.1, "clipping_norm": 1.0,
                "learning_rate": 0.01, "noise_multiplier": 2.0,
            },
            {
                "kind": "flow", "rounds": 1, "local_steps": 1, "sampling_rate": 0.1, "clipping_norm": 1.0,
                "learning_rate": 0.01, "noise_multiplier": 2.0,
            },
        ],
        "release": [{"model": "gan", "images": 4}],
        "federation": {"quorum": 1},
    }  # fmt: skip
    return parse(value, Plan, "test")


@pytest.mark.parametrize(("size", "channels"), [(32, 1), (28, 3)])
@pytest.mark.parametrize("kind", ["spectral", "gan", "flow"])
def test_the_same_images_with_little_and_much_memory(
    kind: str, size: int, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sfumato_common.generators.flow.networks import flow

    plan = _plan(size, channels)
    cohort = arrays(1, 30, size, modality="chest" if channels == 1 else "fundus")
    spectral = fit_spectral(plan, {"alder": cohort}, NoiseRecorder(TestNoise(1), "none").gaussian)
    parts = {"shares": spectral.shares, "mean": spectral.mean, "factor": torch.stack(list(spectral.factors))}
    released = {f"spectral/{name}": value.numpy() for name, value in parts.items()}
    released["spectral/tail"] = np.ones(2, dtype=np.float32)
    released["spectral/signal"] = np.zeros_like(released["spectral/factor"])  # no draw reads it
    if kind != "spectral":
        torch.manual_seed(0)
        network = generator(plan) if kind == "gan" else flow(plan)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, 0.0, 0.02)
        released |= to_arrays("generator" if kind == "gan" else "flow", network)
    components = np.arange(37) % 2
    found = []
    for budget in (SMALL, LARGE):
        monkeypatch.setenv(memory.VARIABLE, budget)
        draws = TorchDraws(torch.Generator().manual_seed(5))
        found.append(sample_images(plan, kind, released, components, draws))
    assert len(np.unique(found[0][:, 5, 5])) > 3
    assert np.array_equal(*found)


def test_the_same_features_and_scores_with_little_and_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels, _ = arrays(1, 30, 32)
    network = fit_network(images, labels, 2, seed=0, steps=3)
    found = []
    for budget in (SMALL, LARGE):
        monkeypatch.setenv(memory.VARIABLE, budget)
        found.append((random_features(images), network.probabilities(images), network.features(images)))
    for few, many in zip(*found, strict=True):
        assert np.array_equal(few, many)


@pytest.mark.parametrize(("alignment", "channels"), [("chest", 1), ("fundus", 3), ("none", 1)])
def test_the_same_appearance_with_little_and_much_memory(
    alignment: str, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = _plan(64, channels).model_dump(mode="json")
    detail = "noise" if alignment == "none" else "mixed"
    stage = {"kind": "appearance", "alignment": alignment, "detail": detail, "phantoms": 8, "noise_multiplier": 0.2}
    plan = parse({**value, "stages": [stage], "release": [{"model": "appearance", "images": 4}]}, Plan, "test")
    layout = AppearanceLayout.of(plan)
    images, labels, patients = arrays(1, 30, 64, modality="chest" if channels == 1 else "fundus")
    found = []
    for budget in (SMALL, LARGE):
        monkeypatch.setenv(memory.VARIABLE, budget)
        features = features_of(layout.map, images)
        mechanism = NoiseRecorder(TestNoise(1), "none").gaussian
        sums = noised_moments(layout, 0.2, features, labels, patient_weights(patients), mechanism)
        released = {f"appearance/{name}": part for name, part in fit_appearance(plan, {"alder": sums}).items()}
        draws = TorchDraws(torch.Generator().manual_seed(5))
        found.append((features, sample_images(plan, "appearance", released, np.arange(37) % 2, draws)))
    assert len(np.unique(found[0][1][:, 30, 30])) > 3
    for few, many in zip(*found, strict=True):
        assert np.array_equal(few, many)
