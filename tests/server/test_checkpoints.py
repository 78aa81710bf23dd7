"""Checkpoints: what the card says, going on after a restart, what is kept once, what damage is seen."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save, save_file
from support.small_study import VALUES

from sfumato_common.accounting.accountant import epsilon
from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.strict import parse
from sfumato_common.study.costs import study_events
from sfumato_common.study.plan import Plan
from sfumato_server.rounds.card import Card, read_checkpoint
from sfumato_server.rounds.checkpoint import Checkpoints, released_model

SPECTRAL = {"spectral/mean": np.arange(6, dtype=np.float32), "spectral/shares": np.ones(2, np.float32)}
FLOW = {"flow/a": np.full((2, 3), 0.5, np.float32), "flow/b": np.zeros(4, np.float32)}


@pytest.fixture(scope="module")
def plan() -> Plan:
    return parse(VALUES, Plan, "test")


@pytest.fixture
def folder(plan, tmp_path):
    kept = Checkpoints(tmp_path, plan)
    kept.save("spectral", 1, SPECTRAL, SPECTRAL)
    kept.save("flow", 1, FLOW, {**SPECTRAL, **FLOW})
    kept.save("flow", 2, FLOW, {**SPECTRAL, **FLOW, "flow/b": np.ones(4, np.float32)})
    kept.finish("flow", {**SPECTRAL, **FLOW})
    return tmp_path / plan.digest


def test_the_card_says_whose_weights_and_what_they_cost(plan, folder):
    card, arrays = read_checkpoint(folder / "flow-0002.safetensors")
    assert (card.plan_hash, card.study, card.stage, card.round, card.rounds) == (plan.digest, "small", "flow", 2, 3)
    assert (card.unit, card.adjacency, card.cohort, card.delta) == ("patient", "add-remove", "train", 1e-5)
    # spectral and two of the flow's three rounds: the last of the plan's events is not paid yet
    assert card.epsilon == pytest.approx(epsilon(study_events(plan, "train")[:-1], 1e-5), abs=2e-6)
    assert card.contents["flow"].arrays == 2
    assert card.contents["flow"].parameters == 10
    assert {"torch", "python", "safetensors"} <= card.versions.keys()
    beside = json.loads((folder / "flow-0002.card.json").read_text())
    assert Card.model_validate(beside) == card
    assert set(arrays) == {"flow/a", "flow/b", "released/flow/b"}


def test_a_file_is_what_the_library_would_write(plan, tmp_path):
    kinds = (np.float64, np.float32, np.float16, np.int64, np.int32, np.uint16, np.uint8, np.bool_)
    arrays = {f"a/{kind.__name__}": np.arange(3).astype(kind) for kind in kinds}
    arrays |= {"b/turned": np.arange(6.0).reshape(2, 3).T, "b/none": np.zeros((0, 2)), "b/one": np.array(2.0)}
    Checkpoints(tmp_path, plan).save("flow", 1, arrays)
    written = tmp_path / plan.digest / "flow-0001.safetensors"
    with safe_open(written, "numpy") as stream:
        metadata = stream.metadata()
    plain = {name: np.asarray(value, order="C") for name, value in arrays.items()}
    assert written.read_bytes() == save(plain, metadata)


def test_weights_left_without_privacy_have_no_epsilon(tmp_path):
    stages = [{**stage, "noise_multiplier": 0.001} for stage in VALUES["stages"]]
    plan = parse({**VALUES, "private": False, "stages": stages}, Plan, "test")
    Checkpoints(tmp_path, plan).save("flow", 1, FLOW)
    card, _ = read_checkpoint(tmp_path / plan.digest / "flow-0001.safetensors")
    assert card.epsilon is None
    assert card.private is False


def test_the_state_comes_back_without_the_released_model(plan, folder):
    number, state = Checkpoints(folder.parent, plan).latest("flow", 3)
    assert number == 2
    assert state.keys() == FLOW.keys()
    assert all(np.array_equal(state[name], FLOW[name]) for name in FLOW)
    assert Checkpoints(folder.parent, plan).latest("gan", 3) == (0, {})


def test_a_checkpoint_of_an_earlier_version_is_read_for_going_on(plan, tmp_path):
    (tmp_path / plan.digest).mkdir()
    (tmp_path / plan.digest / "flow-0003.safetensors").write_bytes(save(FLOW))
    number, state = Checkpoints(tmp_path, plan).latest("flow", 3)
    assert number == 3
    assert np.array_equal(state["flow/a"], FLOW["flow/a"])
    with pytest.raises(VerificationError, match="earlier version"):
        released_model(tmp_path / plan.digest / "flow-0003.safetensors")


def test_the_released_model_is_whole_with_the_spectral_one_beside(folder):
    card, arrays = released_model(folder / "flow-0002.safetensors")
    assert arrays.keys() == (SPECTRAL | FLOW).keys() == set(card.released)
    assert np.array_equal(arrays["flow/b"], np.ones(4))  # the released one, not the state's
    assert np.array_equal(arrays["flow/a"], FLOW["flow/a"])
    assert np.array_equal(arrays["spectral/mean"], SPECTRAL["spectral/mean"])


def test_a_moved_checkpoint_says_what_it_misses_and_the_final_model_misses_nothing(folder, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("flow-0001.safetensors", "flow-model.safetensors"):
        (alone / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(VerificationError, match=r"spectral-0001\.safetensors"):
        released_model(alone / "flow-0001.safetensors")
    _, arrays = released_model(alone / "flow-model.safetensors")
    assert arrays.keys() == (SPECTRAL | FLOW).keys()


def test_the_spectral_model_of_another_run_is_refused(plan, folder):
    other = {**SPECTRAL, "spectral/mean": SPECTRAL["spectral/mean"] + 1}
    Checkpoints(folder.parent, plan).save("spectral", 1, other, other)
    with pytest.raises(VerificationError, match="another run"):
        released_model(folder / "flow-0001.safetensors")


@pytest.mark.parametrize("at", [4, 40, -3])
def test_damage_is_seen_wherever_it_is(plan, folder, at):
    path = folder / "flow-0002.safetensors"
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(VerificationError, match="flow-0002"):
        Checkpoints(folder.parent, plan).latest("flow", 3)


def test_a_cut_file_an_altered_card_and_no_file(folder, tmp_path):
    path = folder / "flow-0001.safetensors"
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:-5])
    with pytest.raises(VerificationError, match="damaged"):
        read_checkpoint(tmp_path / "cut.safetensors")
    with safe_open(path, "numpy") as stream:
        card = json.loads(stream.metadata()["card"])
    save_file(load_file(path), tmp_path / "odd.safetensors", {"card": json.dumps({**card, "round": "two"})})
    with pytest.raises(VerificationError, match="card"):
        read_checkpoint(tmp_path / "odd.safetensors")
    with pytest.raises(ConfigError, match="not a file"):
        read_checkpoint(tmp_path / "absent.safetensors")
