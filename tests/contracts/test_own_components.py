"""Where sites are fitted apart, a site is sent its own components alone: nothing that it does rests on the others."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from support.plans import dp_sgd

from sfumato_client.anonymise import Job, Release, anonymise
from sfumato_client.dataset.cohort import Cohort
from sfumato_client.training import StageJob, train
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators import GENERATORS
from sfumato_common.generators.components import arrays_for, component_count, for_all_components, schema_at
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import Streams
from sfumato_common.phantom import arrays as phantom
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.rounds.strategies import strategy_of

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
SITES = {"alder": 1, "birch": 2, "cedar": 3}
SPECTRAL = {"kind": "spectral", "bandwidth": 4, "clip_radius": 2.0, "noise_multiplier": 0.1, "radii": "charged"}
CODEC = {"kind": "codec", "noise_multiplier": 0.1, "form": {"size": 16, "cosines": 24, "kept": 8, "width": 8}}
APPEARANCE = {"kind": "appearance", "noise_multiplier": 0.1, "phantoms": 8}
EMBEDDING = {"kind": "embedding", "noise_multiplier": 1.0, "width": 8, "generator_steps": 3}
GAN = {"kind": "gan", "width": 8, "generator_steps": 3, "fakes": 8, **dp_sgd(rounds=2)}
STYLEGAN2 = {
    "kind": "stylegan2", "channel_base": 128, "channel_max": 8, "generator_steps": 3, "fakes": 8, **dp_sgd(rounds=2)
}  # fmt: skip
FLOW = {"kind": "flow", "levels": 1, "steps_per_level": 2, "hidden": 8, **dp_sgd(rounds=2)}
DIFFUSION = {"kind": "diffusion", "width": 16, "depth": 1, "sampling_steps": 3, **dp_sgd(rounds=2)}
PLANS = {
    "spectral": [SPECTRAL, EMBEDDING, GAN, STYLEGAN2, FLOW, CODEC, APPEARANCE, DIFFUSION],
    "codec": [CODEC, FLOW, DIFFUSION],
    "appearance": [APPEARANCE, FLOW, DIFFUSION],
}
QUICK = {"images": 4, "k": 3, "encoder_steps": 2, "refinement_steps": 1}
METHODS = [
    {"method": "k-same", **QUICK},
    {"method": "k-salsa", "steps": 2, "embedding_steps": 2, **QUICK},
    {"method": "linear-walk", "points": 2, **QUICK},
    {"method": "plan-walk", "points": 2, "steps": 2, "classifier_steps": 2, **QUICK},
    {"method": "dp-k-average", "radius": 4.0, "noise_multiplier": 1.0, **QUICK},
]
NOISED = [
    {"method": "dp-glow", "model": "flow", "images": 4, "radius": 40.0, "epsilon": 4.0},
    {
        "method": "cadp", "model": "flow", "images": 4, "radius": 10.0, "mechanism": "gaussian", "clip": "l2",
        "noise_multiplier": 2.0, "label_epsilon": 1.0,
    },
]  # fmt: skip
SPACES = [kind for kind, record in GENERATORS.items() if record.latent is not None]


def items_of(stages: list[dict], method: str) -> list[dict]:
    """Release items of a method for every model that can have it; `formal` are those without groups."""
    kinds = [stage["kind"] for stage in stages]
    if method == "formal":
        drawn = [{"model": kind, "images": 4} for kind in kinds]
        return drawn + (NOISED if kinds[0] == "spectral" else NOISED[:1])
    (item,) = [item for item in METHODS if item["method"] == method]
    return [{**item, "model": kind} for kind in kinds if kind in SPACES]


def plan_of(stages: list[dict], release: list[dict]) -> Plan:
    apart = [{**stage, "by_site": True} if stage["kind"] in PLANS else stage for stage in stages]
    value = {
        "study": "apart",
        "image": {"size": 16, "channels": 1},
        "labels": ["normal", "opacity"],
        "sites": {site: {"nominal_patients": 40} for site in SITES},
        "privacy": {"epsilon": 1000.0, "delta": 1.0e-5},
        "stages": apart,
        "release": release,
        "federation": {"quorum": 1},
    }
    return parse(copy.deepcopy(value), Plan, "plan")


def cohort(site: str) -> Cohort:
    images, labels, patient_index = phantom(SITES[site], 20, 16)
    return Cohort(np.clip(images.astype(np.int64) + 20 * SITES[site], 0, 255).astype(np.uint8), labels, patient_index)


def reply_to(plan: Plan, stage, sent) -> dict:
    noise = TestNoise(1)
    return dict(train(StageJob(plan, "birch", stage, 1, sent, cohort("birch"), noise, NoiseRecorder(noise, "entry"))))


def own_of(plan: Plan, schema, whole) -> dict:
    """What comes of the arrays on the way to birch: its own components, as it expects and uses them."""
    sent = arrays_for(plan, "birch", schema, whole)
    expected = schema_at(plan, schema)
    assert sent.keys() == expected.keys() and all(expected[name].matches(value) for name, value in sent.items())
    found = for_all_components(plan, schema, sent)
    assert {name: value.shape for name, value in found.items()} == {name: spec.shape for name, spec in schema.items()}
    return found


@pytest.fixture(scope="module", params=sorted(PLANS))
def trained(request):
    """A plan, and of one round of every stage what birch was sent whole, what it answered to that, and the model."""
    stages, released, found = PLANS[request.param], {}, {}
    plan = plan_of(stages, [{"model": request.param, "images": 4}])
    for stage in plan.stages:
        strategy = strategy_of(plan, stage, released)
        sent = strategy.outbound(1, "birch")
        reply = reply_to(plan, stage, sent)
        replies = {site: reply for site in SITES}
        if stage.kind in PLANS:
            for site in SITES:
                noise = TestNoise(SITES[site])
                job = StageJob(plan, site, stage, 1, sent, cohort(site), noise, NoiseRecorder(noise, "entry"))
                replies[site] = dict(train(job))
        strategy.absorb(1, replies, torch.Generator().manual_seed(0))
        released[stage.kind] = strategy.released()
        found[stage.kind] = sent, reply
    return stages, plan, found, released


def test_a_site_answers_every_stage_from_its_own_components(trained):
    _, plan, found, _ = trained
    for stage in plan.stages:
        whole, reply = found[stage.kind]
        own = own_of(plan, EXCHANGES[stage.kind].sent(plan), whole)
        if stage.kind in ("flow", "gan", "diffusion"):
            assert any(not np.array_equal(own[name], whole[name]) for name in whole), "the sites do differ"
        again = reply_to(plan, stage, own)
        assert all(np.array_equal(again[name], value) for name, value in reply.items()), stage.kind


@pytest.mark.parametrize(
    "method", ["formal", *(pytest.param(item["method"], marks=pytest.mark.slow) for item in METHODS)]
)
def test_a_site_makes_every_release_item_from_its_own_components(trained, method):
    stages, base, _, released = trained
    own = {kind: own_of(base, GENERATORS[kind].released(base), arrays) for kind, arrays in released.items()}
    for item in items_of(stages, method):
        plan = plan_of(stages, [item])
        made = []
        for models in (released, own):
            streams, recorder = Streams.of(TestNoise(0)), NoiseRecorder(TestNoise(0), "entry")
            made.append(
                anonymise(Job(Release(plan, "birch", models, cohort("birch")), plan.release[0], streams, recorder))
            )
        assert np.array_equal(made[0].images, made[1].images), item
        assert np.array_equal(made[0].labels, made[1].labels), item


def test_what_a_site_is_sent_does_not_grow_with_the_sites():
    few, many = (
        plan_of([SPECTRAL, GAN], [{"model": "gan", "images": 4}]),
        parse(
            {
                **plan_of([SPECTRAL, GAN], [{"model": "gan", "images": 4}]).model_dump(mode="json"),
                "sites": {f"site-{number:03d}": {"nominal_patients": 40} for number in range(100)},
            },
            Plan,
            "plan",
        ),
    )

    def moments(plan):
        schema = schema_at(plan, GENERATORS["spectral"].released(plan))
        return {name: spec.bytes for name, spec in schema.items() if name != "spectral/shares"}

    assert component_count(many) == 200 and moments(few) == moments(many)


def test_where_sites_are_fitted_together_everything_goes_to_all():
    plan = parse(
        {**plan_of([SPECTRAL], [{"model": "spectral", "images": 4}]).model_dump(mode="json"), "stages": [SPECTRAL]},
        Plan,
        "plan",
    )
    schema = GENERATORS["spectral"].released(plan)
    arrays = {name: np.ones(spec.shape, np.float32) for name, spec in schema.items()}
    assert schema_at(plan, schema) == schema
    for found in (arrays_for(plan, "birch", schema, arrays), for_all_components(plan, schema, arrays)):
        assert all(found[name] is value for name, value in arrays.items())
