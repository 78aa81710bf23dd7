"""What a site accepts from the coordinator: the reach of honest training, met by the worst of it and never passed."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from sfumato_client.site.inbound import LARGEST_VALUE, Seen, check_form, models_of
from sfumato_common.errors import VerificationError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators.displacement import adam_step, within_displacement
from sfumato_common.generators.flow.displacement import BETAS as FLOW_BETAS
from sfumato_common.generators.gan.displacement import GENERATOR_BETAS
from sfumato_common.generators.gan.displacement import SITE_BETAS as GAN_BETAS
from sfumato_common.generators.settings import DpSgdStage
from sfumato_common.generators.starts import initial_model, max_displacement
from sfumato_common.generators.update import UPDATE, pack_update
from sfumato_common.generators.weights import to_arrays
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.types import ArraySpec
from sfumato_server.rounds.strategies import strategy_of

DP = {
    "local_steps": 3,
    "sampling_rate": 0.2,
    "clipping_norm": 1.0,
    "noise_multiplier": 1.0,
    "learning_rate": 0.01,
}
PLAN = {
    "study": "reach",
    "image": {"size": 16, "channels": 1},
    "labels": ["normal", "opacity"],
    "sites": {"alder": {"nominal_patients": 40}, "birch": {"nominal_patients": 80}},
    "privacy": {"epsilon": 100.0, "delta": 1.0e-5},
    "stages": [
        {"kind": "spectral", "bandwidth": 4, "clip_radius": 2.0, "noise_multiplier": 0.5},
        {"kind": "gan", "rounds": 4, "width": 8, "generator_steps": 5, "fakes": 8, **DP},
        {"kind": "flow", "rounds": 4, "levels": 1, "steps_per_level": 2, "hidden": 8, **DP},
    ],
    "release": [{"model": kind, "images": 4} for kind in ("spectral", "gan", "flow")],
    "federation": {"quorum": 1},
}
LIMIT = "not where the plan's training could have led"

SITE_BETAS = {"gan": GAN_BETAS, "flow": FLOW_BETAS}


@pytest.fixture
def plan() -> Plan:
    return parse(copy.deepcopy(PLAN), Plan, "plan")


def dp_stage(plan: Plan, kind: str) -> DpSgdStage:
    stage = plan.stage(kind)
    assert isinstance(stage, DpSgdStage)
    return stage


def spectral(plan: Plan) -> dict[str, np.ndarray]:
    schema = EXCHANGES["flow"].sent(plan)
    shapes = {name: spec.shape for name, spec in schema.items() if name.startswith("spectral/")}
    values = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    for name in ("spectral/factor", "spectral/signal"):
        values[name] += 0.1 * np.eye(shapes[name][-1], dtype=np.float32)
    values["spectral/shares"] += 0.5
    values["spectral/tail"] += 1.0
    return values


def worst_gradients(betas, steps: int) -> torch.Tensor:
    """Gradients for which Cauchy-Schwarz is an equality at the last step: each is beta1 / beta2 times the next."""
    return 1e6 * (betas[0] / betas[1]) ** torch.arange(steps - 1, -1, -1, dtype=torch.float64)


def adam_path(gradients: torch.Tensor, betas, rate: float) -> torch.Tensor:
    """Where torch's Adam takes one weight that starts at 0, after each gradient."""
    weight = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([weight], lr=rate, betas=betas)
    places = []
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimiser.step()
        places.append(weight.detach().clone())
    return torch.stack(places)


ALL_BETAS = sorted({*SITE_BETAS.values(), GENERATOR_BETAS})


@pytest.mark.parametrize("betas", ALL_BETAS)
def test_the_bound_on_a_step_is_met_and_never_passed(betas):
    rate = 0.01
    path = adam_path(worst_gradients(betas, 1500), betas, rate)
    longest = float(path.diff(prepend=torch.zeros(1)).abs().max())
    assert 0.999 * rate * adam_step(betas) < longest <= rate * adam_step(betas) * (1 + 1e-9)


@pytest.mark.parametrize("betas", ALL_BETAS)
@pytest.mark.parametrize("kind", ["normal", "cauchy", "growing", "shrinking", "sparse", "one", "alternating"])
def test_no_gradients_pass_the_bound(betas, kind):
    rng, steps = np.random.default_rng(3), 400
    gradients = {
        "normal": rng.normal(size=steps),
        "cauchy": rng.standard_cauchy(steps),
        "growing": 1.7 ** np.arange(steps),
        "shrinking": 0.6 ** np.arange(steps),
        "sparse": rng.normal(size=steps) * (rng.random(steps) < 0.02),
        "one": np.eye(steps)[200] * 1e9,
        "alternating": (-1.0) ** np.arange(steps) * 2.0 ** np.arange(steps),
    }[kind]
    path = adam_path(torch.from_numpy(gradients), betas, 1.0)
    assert float(path.diff(prepend=torch.zeros(1)).abs().max()) <= adam_step(betas) * (1 + 1e-9)


def updates(plan: Plan, kind: str, start, betas, seed: int):
    """A site's update after its local steps on gradients that are as bad as they come, one sign a weight."""
    stage, rng = dp_stage(plan, kind), np.random.default_rng(seed)
    after = {}
    for name, value in start.items():
        weight = torch.from_numpy(value.copy()).requires_grad_()
        optimiser = torch.optim.Adam([weight], lr=stage.learning_rate, betas=betas)
        sign = torch.from_numpy(rng.choice([-1.0, 1.0], value.shape).astype(np.float32))
        for size in worst_gradients(betas, stage.local_steps):
            weight.grad = sign * float(size)
            optimiser.step()
        after[name] = weight.detach().numpy()
    return {UPDATE: pack_update(start, after)}


def rounds_of(plan: Plan, kind: str):
    """Four honest rounds of two such sites: (requests by round, final model, strategy's state before round 3)."""
    strategy = strategy_of(plan, plan.stage(kind), {"spectral": spectral(plan)})
    prefix = "discriminator/" if kind == "gan" else "flow/"
    sent, state = {}, {}
    for number in range(1, dp_stage(plan, kind).rounds + 1):
        if number == 3:
            state = {name: value.copy() for name, value in strategy.state().items()}
        sent[number] = {name: value.copy() for name, value in strategy.outbound(number, "alder").items()}
        start = {name: value for name, value in sent[number].items() if name.startswith(prefix)}
        replies = {site: updates(plan, kind, start, SITE_BETAS[kind], number) for site in plan.sites}
        strategy.absorb(number, replies, torch.Generator().manual_seed(number))
    return sent, strategy.released(), state


@pytest.mark.parametrize("kind", ["gan", "flow"])
@pytest.mark.parametrize("met", [(1, 2, 3, 4), (1, 4), (2, 3), (4,), (1, 3, 4)])
def test_honest_rounds_pass_also_when_some_were_missed(plan, tmp_path, kind, met):
    sent, final, _ = rounds_of(plan, kind)
    for number in met:
        seen = Seen(tmp_path, plan)  # every message is a process of its own: what is known is on the disk
        seen.check_round(dp_stage(plan, kind), number, sent[number])
        seen.keep_round(plan.stage(kind), number, sent[number])
    Seen(tmp_path, plan).check_release({"spectral": spectral(plan), kind: final})


@pytest.mark.parametrize("kind", ["gan", "flow"])
def test_a_restarted_coordinator_sends_the_same_and_passes(plan, tmp_path, kind):
    sent, _, state = rounds_of(plan, kind)
    seen = Seen(tmp_path, plan)
    for number in (1, 2):
        seen.keep_round(plan.stage(kind), number, sent[number])
    again = strategy_of(plan, plan.stage(kind), {"spectral": spectral(plan)})
    again.restore(state)
    outbound = again.outbound(3, "alder")
    assert all(np.array_equal(outbound[name], sent[3][name]) for name in sent[3])
    seen.check_round(dp_stage(plan, kind), 3, outbound)


@pytest.mark.parametrize(("kind", "model"), [("gan", "generator"), ("gan", "discriminator"), ("flow", "flow")])
def test_a_little_more_than_honest_training_can_do_is_refused(plan, tmp_path, kind, model):
    sent, _, _ = rounds_of(plan, kind)
    stage, seen = dp_stage(plan, kind), Seen(tmp_path, plan)
    names = [name for name in sent[1] if name.startswith(f"{model}/")]
    seen.keep_round(plan.stage(kind), 1, sent[1])
    for name in names:
        for sign in (-1.0, 1.0):
            far = sent[1][name] + np.float32(sign * (1.02 * max_displacement(stage, model, 1) + 1e-4))
            with pytest.raises(VerificationError, match=LIMIT):
                seen.check_round(stage, 2, {**sent[1], name: far})
    near = {name: sent[1][name] + np.float32(0.99 * max_displacement(stage, model, 1)) for name in names}
    seen.check_round(stage, 2, {**sent[1], **near})


def test_a_generator_begins_where_the_embedding_stage_can_have_led_and_its_judge_at_the_public_start(tmp_path):
    value = copy.deepcopy(PLAN)
    value["stages"].insert(1, {"kind": "embedding", "noise_multiplier": 1.0, "width": 8, "generator_steps": 7})
    value["stages"][2]["generator_start"] = "embedding"
    plan = parse(value, Plan, "plan")
    gan, embedding = plan.stage("gan"), plan.stage("embedding")
    public = {name: to_arrays(name, initial_model(name, plan)) for name in ("generator", "discriminator")}
    led = np.float32(0.99 * max_displacement(embedding, "generator", 1))

    def sent(generator, judge=0.0):
        shift = {"generator": generator, "discriminator": judge}
        weights = {
            key: np.asarray(value + np.float32(shift[name]))  # a sum of arrays without a dimension is none
            for name, own in public.items()
            for key, value in own.items()
        }
        return {**spectral(plan), **weights}

    Seen(tmp_path, plan).check_round(gan, 1, sent(led))
    for refused in (sent(1.02 * led), sent(led, judge=0.01)):
        with pytest.raises(VerificationError, match=LIMIT):
            Seen(tmp_path, plan).check_round(gan, 1, refused)
    # once the first round was seen, only the GAN's own steps count
    seen = Seen(tmp_path, plan)
    seen.keep_round(plan.stage("gan"), 1, sent(led))
    step = np.float32(0.99 * max_displacement(gan, "generator", 1))
    seen.check_round(gan, 2, sent(led + step))
    with pytest.raises(VerificationError, match=LIMIT):
        seen.check_round(gan, 2, sent(led + 1.05 * step))
    final = {**spectral(plan), **{name: value for name, value in sent(led + 3 * step).items() if "generator" in name}}
    seen.check_release({"spectral": spectral(plan), "gan": final})
    too_far = {name: value + 2 * step if "generator" in name else value for name, value in final.items()}
    with pytest.raises(VerificationError, match="final model is not where"):
        seen.check_release({"spectral": spectral(plan), "gan": too_far})


def test_going_back_and_forth_does_not_add_up(plan, tmp_path):
    # 1, 4, 2, 3: each change within the reach of the rounds between, together far beyond the plan's
    stage, seen = dp_stage(plan, "flow"), Seen(tmp_path, plan)
    name, place = "flow", {**spectral(plan), **to_arrays("flow", initial_model("flow", plan))}
    seen.check_round(stage, 1, place)
    seen.keep_round(plan.stage("flow"), 1, place)
    step = np.float32(max_displacement(stage, name, 3))
    place = {key: value + step if key.startswith("flow/") else value for key, value in place.items()}
    seen.check_round(stage, 4, place)
    seen.keep_round(plan.stage("flow"), 4, place)
    for number in (1, 2, 3):
        with pytest.raises(VerificationError, match="older than one that came before"):
            seen.check_round(stage, number, place)
    moved = {key: value + np.float32(1e-3) if key.startswith("flow/") else value for key, value in place.items()}
    with pytest.raises(VerificationError, match=LIMIT):
        seen.check_round(stage, 4, moved)


def test_what_is_kept_is_by_plan_and_stage(plan, tmp_path):
    sent = {kind: rounds_of(plan, kind)[0] for kind in ("gan", "flow")}
    seen = Seen(tmp_path, plan)
    seen.keep_round(plan.stage("gan"), 3, sent["gan"][3])
    # the flow is still at its own start, and another plan's study at its own
    seen.check_round(dp_stage(plan, "flow"), 1, sent["flow"][1])
    other = parse({**copy.deepcopy(PLAN), "study": "second"}, Plan, "plan")
    start = dict(spectral(other))
    for name in ("generator", "discriminator"):
        start |= to_arrays(name, initial_model(name, other))
    Seen(tmp_path, other).check_round(dp_stage(other, "gan"), 1, start)
    with pytest.raises(VerificationError, match=LIMIT):
        Seen(tmp_path, other).check_round(dp_stage(other, "gan"), 1, sent["gan"][1])


def test_the_kept_weights_are_for_the_sites_user_alone(plan, tmp_path):
    seen = Seen(tmp_path, plan)
    seen.keep_round(plan.stage("flow"), 1, rounds_of(plan, "flow")[0][1])
    (kept,) = tmp_path.rglob("flow.safetensors")
    assert kept.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("part", ["shares", "mean", "factor", "signal", "tail"])
def test_the_first_spectral_model_stays_the_only_one(plan, tmp_path, part):
    sent, final, _ = rounds_of(plan, "flow")
    seen = Seen(tmp_path, plan)
    seen.keep_round(plan.stage("flow"), 1, sent[1])
    changed = {**sent[2], f"spectral/{part}": sent[2][f"spectral/{part}"] + np.float32(1e-6)}
    with pytest.raises(VerificationError, match="another one than in this study's earlier requests"):
        seen.check_round(dp_stage(plan, "flow"), 2, changed)
    gan = {**sent[2], **{name: value for name, value in changed.items() if name.startswith("spectral/")}}
    with pytest.raises(VerificationError, match="another one than in this study's earlier requests"):
        seen.check_round(dp_stage(plan, "gan"), 1, gan)
    with pytest.raises(VerificationError, match="rest on different spectral models"):
        seen.check_release(
            {"spectral": spectral(plan), "flow": {**final, f"spectral/{part}": changed[f"spectral/{part}"]}}
        )
    seen.keep_round(plan.stage("flow"), 2, changed)  # a later request never changes what is pinned
    seen.check_round(dp_stage(plan, "flow"), 3, sent[3])


def test_the_fixed_arrays_of_any_generator_stay_what_they_were(plan, tmp_path):
    # what is neither a network's weight nor the spectral model: a generator of its own might have made it
    sent, seen = rounds_of(plan, "flow")[0], Seen(tmp_path, plan)
    first = {**sent[1], "class-mean/means": np.zeros(3, np.float32)}
    seen.check_round(plan.stage("flow"), 1, first)
    seen.keep_round(plan.stage("flow"), 1, first)
    seen.check_round(plan.stage("flow"), 2, {**sent[2], "class-mean/means": np.zeros(3, np.float32)})
    with pytest.raises(VerificationError, match="class-mean model is another one than in this study's earlier"):
        seen.check_round(plan.stage("flow"), 2, {**sent[2], "class-mean/means": np.ones(3, np.float32)})


def test_the_parts_of_a_release_rest_on_one_spectral_model_even_when_none_was_seen(plan, tmp_path):
    _, final, _ = rounds_of(plan, "flow")
    other = {**spectral(plan), "spectral/mean": spectral(plan)["spectral/mean"] + np.float32(0.5)}
    Seen(tmp_path, plan).check_release({"spectral": spectral(plan), "flow": final})
    with pytest.raises(VerificationError, match="rest on different spectral models"):
        Seen(tmp_path, plan).check_release({"spectral": other, "flow": final})


SCHEMA = {"a": ArraySpec("float32", (2,)), "b": ArraySpec("float32", (1, 2))}


def test_form():
    good = {"a": np.zeros(2, np.float32), "b": np.full((1, 2), LARGEST_VALUE, np.float32)}
    check_form(good, SCHEMA)
    check_form({}, {})
    for wrong in (
        {"a": good["a"]},
        {**good, "c": good["a"]},
        {**good, "a": np.zeros(2)},
        {**good, "a": np.zeros((2, 1), np.float32)},
        {**good, "a": np.array([0, np.nan], np.float32)},
        {**good, "a": np.array([0, -np.inf], np.float32)},
        {**good, "a": np.array([0, -1.001 * LARGEST_VALUE], np.float32)},
    ):
        with pytest.raises(VerificationError):
            check_form(wrong, SCHEMA)


def test_release_arrays_come_apart_by_model(plan):
    start = {kind: rounds_of(plan, kind)[1] for kind in ("gan", "flow")} | {"spectral": spectral(plan)}
    arrays = {f"{kind}:{name}": value for kind, values in start.items() for name, value in values.items()}
    assert models_of(arrays, plan, plan.release).keys() == start.keys()
    for wrong in (
        {name: value for name, value in arrays.items() if not name.startswith("gan:")},
        {**arrays, "extra:x": np.zeros(1, np.float32)},
        {**arrays, "unnamed": np.zeros(1, np.float32)},
        {},
    ):
        with pytest.raises(VerificationError, match="other models"):
            models_of(wrong, plan, plan.release)


def test_within_reach_leaves_room_for_arithmetic_only():
    before = {"w": np.float32([0.0, 1000.0])}
    assert within_displacement(before, {"w": np.float32([0.5, 999.5])}, 0.5)
    assert within_displacement(before, {"w": before["w"] + np.float32([5e-6, 5e-3])}, 0.0)
    assert not within_displacement(before, {"w": np.float32([0.5001, 1000.0])}, 0.5)
    assert not within_displacement(before, {"w": np.float32([np.nan, 1000.0])}, 0.5)
