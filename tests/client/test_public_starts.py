"""Pinned public starts at the site: the very weights that the plan names, from the first round on, or nothing."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from safetensors.numpy import save
from safetensors.torch import save as save_torch
from support.plans import dp_sgd

from sfumato_client.site.inbound import Seen
from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators import NETWORKS
from sfumato_common.generators.settings import DpSgdStage
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.starts import max_displacement, read_start, start_key, start_schema, starting_model
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.starts import keep_start
from sfumato_common.types import fingerprint
from sfumato_server.rounds.starts import load_starts
from sfumato_server.rounds.strategies import strategy_of

DP = dp_sgd(rounds=3, learning_rate=0.01)
PLAN = {
    "study": "starts",
    "image": {"size": 16, "channels": 1},
    "labels": ["normal", "opacity"],
    "sites": {"alder": {"nominal_patients": 40}},
    "privacy": {"epsilon": 100.0, "delta": 1.0e-5},
    "stages": [
        {"kind": "spectral", "bandwidth": 4, "clip_radius": 2.0, "noise_multiplier": 0.5},
        {"kind": "gan", "width": 8, "generator_steps": 5, "fakes": 8, **DP},
        {"kind": "flow", "levels": 1, "steps_per_level": 2, "hidden": 8, **DP},
    ],
    "release": [{"model": kind, "images": 4} for kind in ("spectral", "gan", "flow")],
    "federation": {"quorum": 1},
}
KINDS = ["gan", "flow"]


def drawn(plan: Plan, kind: str, seed: int = 1):
    rng = np.random.default_rng(seed)
    schema = start_schema(plan, plan.stage(kind))
    return {name: np.asarray(rng.normal(0, 0.1, spec.shape), np.float32) for name, spec in schema.items()}


def pinned(kind: str, weights) -> Plan:
    values = copy.deepcopy(PLAN)
    stage = next(stage for stage in values["stages"] if stage["kind"] == kind)
    stage["start"] = {"source": "phantom", "sha256": fingerprint(weights)}
    return parse(values, Plan, "plan")


def stage_of(plan: Plan, kind: str) -> DpSgdStage:
    stage = plan.stage(kind)
    assert isinstance(stage, DpSgdStage)
    return stage


def spectral(plan: Plan):
    """What an honest fit may give: every component the power law itself."""
    schema, unit = EXCHANGES["flow"].sent(plan), np.sqrt(Layout.of(plan).prior)
    shapes = {name: spec.shape for name, spec in schema.items() if name.startswith("spectral/")}
    values = {"mean": 0.0, "factor": np.diag(unit), "signal": 0.0, "tail": 1.0, "shares": 0.5}
    found = {name: np.zeros(shape) + values[name.partition("/")[2]] for name, shape in shapes.items()}
    found["spectral/shares"] /= found["spectral/shares"].sum()
    return {name: value.astype(np.float32) for name, value in found.items()}


@pytest.fixture(params=KINDS)
def case(request):
    """(kind, plan that pins a start, its weights, the first request)."""
    kind = request.param
    weights = drawn(parse(copy.deepcopy(PLAN), Plan, "plan"), kind)
    plan = pinned(kind, weights)
    return kind, plan, weights, {**spectral(plan), **weights}


def test_the_pinned_weights_are_accepted_then_what_training_makes_of_them(case, tmp_path):
    kind, plan, weights, first = case
    stage, seen = stage_of(plan, kind), Seen(tmp_path, plan)
    seen.check_round(stage, 1, first)
    seen.keep_round(plan.stage(kind), 1, first)
    least = min(max_displacement(stage, name.partition("/")[0], 2) for name in weights)
    third = {**first, **{name: np.asarray(value + np.float32(0.9 * least)) for name, value in weights.items()}}
    Seen(tmp_path, plan).check_round(stage, 3, third)
    Seen(tmp_path, plan).keep_round(plan.stage(kind), 3, third)
    final = {name: third[name] for name in third if not name.startswith("discriminator/")}
    Seen(tmp_path, plan).check_release({"spectral": spectral(plan), kind: final})


def begun(plan, kind):
    return strategy_of(plan, plan.stage(kind), {"spectral": spectral(plan)})


@pytest.mark.parametrize("change", ["one value", "one bit", "drawn from the digest", "another's"])
def test_other_weights_are_refused_in_the_first_round(case, tmp_path, change):
    kind, plan, weights, first = case
    name = sorted(weights)[0]
    wrong = {
        "one value": lambda: {name: np.asarray(weights[name] + np.float32(1e-3))},
        "one bit": lambda: {name: np.asarray(np.nextafter(weights[name], np.float32(np.inf)))},
        "drawn from the digest": lambda: {
            key: value for key, value in begun(unpinned(plan), kind).outbound(1, "alder").items()
            if not key.startswith("spectral/")
        },
        "another's": lambda: drawn(plan, kind, seed=2),
    }[change]()  # fmt: skip
    with pytest.raises(VerificationError, match="not the public start"):
        Seen(tmp_path, plan).check_round(stage_of(plan, kind), 1, {**first, **wrong})


def unpinned(plan: Plan) -> Plan:
    values = plan.model_dump(mode="json")
    for stage in values["stages"]:
        stage.pop("start", None)
    return parse(values, Plan, "plan")


def test_a_site_that_missed_the_first_round_refuses(case, tmp_path):
    kind, plan, _, first = case
    for number in (2, 3):
        with pytest.raises(VerificationError, match="missed the first round"):
            Seen(tmp_path, plan).check_round(stage_of(plan, kind), number, first)
    with pytest.raises(VerificationError, match="missed the first round"):
        Seen(tmp_path, plan).check_release({"spectral": spectral(plan), kind: first})


def test_later_rounds_and_the_release_are_held_to_the_start(case, tmp_path):
    kind, plan, weights, first = case
    stage, seen = stage_of(plan, kind), Seen(tmp_path, plan)
    seen.keep_round(plan.stage(kind), 1, first)
    far = {**first, **{name: np.asarray(value + np.float32(1.0)) for name, value in weights.items()}}
    for call in (
        lambda: seen.check_round(stage, 2, far),
        lambda: seen.check_release({"spectral": spectral(plan), kind: far}),
    ):
        with pytest.raises(VerificationError, match="training could have led"):
            call()
    # what is kept of the start is what was checked: altered on the disk, it no longer counts
    (kept,) = tmp_path.rglob(f"{kind}-start.safetensors")
    kept.write_bytes(save(drawn(plan, kind, seed=3), metadata={"round": "1"}))
    with pytest.raises(VerificationError, match="not the public start"):
        seen.check_release({"spectral": spectral(plan), kind: first})


def test_the_coordinator_starts_from_the_pinned_weights_or_not_at_all(case):
    kind, plan, weights, first = case
    given = {"spectral": spectral(plan), start_key(kind): weights}
    outbound = strategy_of(plan, plan.stage(kind), given).outbound(1, "alder")
    assert all(np.array_equal(outbound[name], value) for name, value in first.items())
    for wrong in ({}, {start_key(kind): drawn(plan, kind, seed=2)}):
        with pytest.raises(VerificationError, match="not the public start"):
            strategy_of(plan, plan.stage(kind), {"spectral": spectral(plan), **wrong})


def test_a_plan_without_a_start_starts_as_before():
    plan = parse(copy.deepcopy(PLAN), Plan, "plan")
    one, other = (starting_model("flow", NETWORKS["flow"], plan, plan.stage("flow"), {}) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_coordinators_folder_keeps_what_the_plan_pins_and_nothing_else(case, tmp_path):
    kind, plan, weights, _ = case
    with pytest.raises(ConfigError, match="are not here"):
        load_starts(tmp_path, plan)
    with pytest.raises(ConfigError, match="no stage of the plan pins"):
        keep_start(tmp_path, plan, save(drawn(plan, kind, seed=2)))
    # half precision and arrays of other models: the form is the plan's, the values are what counts
    assert keep_start(tmp_path, plan, save({**weights, "spectral/mean": np.zeros(3, np.float32)})) == kind
    loaded = load_starts(tmp_path, plan)[start_key(kind)]
    assert fingerprint(loaded) == fingerprint(weights)


@pytest.mark.parametrize("damage", ["missing", "shape", "integers", "huge", "not finite", "no file"])
def test_a_file_that_is_no_start_is_refused(damage):
    plan = parse(copy.deepcopy(PLAN), Plan, "plan")
    weights = {name: torch.from_numpy(value) for name, value in drawn(plan, "flow").items()}
    name = sorted(weights)[0]
    match damage:
        case "missing":
            del weights[name]
        case "shape":
            weights[name] = weights[name][None]
        case "integers":
            weights[name] = weights[name].to(torch.int32)
        case "huge":
            weights[name] = weights[name] + 1e5
        case "not finite":
            weights[name] = weights[name] * torch.nan
    data = b"not safetensors" if damage == "no file" else save_torch(weights)
    with pytest.raises(VerificationError, match="start"):
        read_start(plan, plan.stage("flow"), data)


def test_other_float_types_become_float32():
    plan = parse(copy.deepcopy(PLAN), Plan, "plan")
    weights = {name: torch.from_numpy(value).to(torch.bfloat16) for name, value in drawn(plan, "flow").items()}
    found = read_start(plan, plan.stage("flow"), save_torch(weights))
    assert all(value.dtype == np.float32 for value in found.values())
    assert all(np.array_equal(found[name], value.float().numpy()) for name, value in weights.items())
