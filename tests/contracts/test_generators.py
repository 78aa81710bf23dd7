"""The contract that every generator's record keeps, and what a record may not be."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from typing import Literal

import numpy as np
import pytest
import torch

from sfumato_client.dataset.cohort import Cohort
from sfumato_client.training import StageJob, train
from sfumato_common.accounting.events import same_mechanisms
from sfumato_common.errors import ConfigError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.exchanges.choice import CHOICE
from sfumato_common.exchanges.features import FEATURES
from sfumato_common.generators import GENERATORS, NETWORKS
from sfumato_common.generators.base import Exchange, Generator, import_named
from sfumato_common.generators.components import component_count, condition
from sfumato_common.generators.displacement import within_displacement
from sfumato_common.generators.flow import FLOW
from sfumato_common.generators.sampling import sample_images
from sfumato_common.generators.schemas import update_schema, weights_schema
from sfumato_common.generators.settings import StageSettings
from sfumato_common.generators.starts import initial_model, max_displacement, start_displacement
from sfumato_common.generators.update import UPDATE
from sfumato_common.generators.weights import to_arrays
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.strict import Strict, parse
from sfumato_common.study.plan import Plan
from sfumato_server.rounds.strategies import Strategy, strategy_of

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
KINDS = sorted(GENERATORS)
FROZEN = {"autoencoder", "denoiser"}  # public, and used as they are
DP = {"rounds": 2, "local_steps": 2, "sampling_rate": 0.3, "clipping_norm": 1.0, "noise_multiplier": 1.0}
PLAN = {
    "study": "contract",
    "image": {"size": 16, "channels": 1},
    "labels": ["normal", "opacity"],
    "sites": {"alder": {"nominal_patients": 40}, "birch": {"nominal_patients": 40}},
    "privacy": {"epsilon": 100.0, "delta": 1.0e-5},
    "stages": [
        {"kind": "spectral", "bandwidth": 4, "clip_radius": 2.0, "noise_multiplier": 0.5, "radii": "charged"},
        {"kind": "embedding", "noise_multiplier": 1.0, "width": 8, "generator_steps": 3},
        {"kind": "gan", "learning_rate": 1e-3, "width": 8, "generator_steps": 3, "fakes": 8, **DP},
        {"kind": "flow", "learning_rate": 1e-3, "levels": 1, "steps_per_level": 2, "hidden": 8, **DP},
        {"kind": "codec", "noise_multiplier": 0.5, "form": {"size": 16, "cosines": 24, "kept": 8, "width": 8}},
        {
            "kind": "stylegan2",
            "learning_rate": 1e-3,
            "channel_base": 128,
            "channel_max": 8,
            "generator_steps": 3,
            "fakes": 8,
            **DP,
        },
        {"kind": "appearance", "noise_multiplier": 0.5, "phantoms": 8},
        {"kind": "diffusion", "learning_rate": 1e-3, "width": 16, "depth": 1, "sampling_steps": 3, **DP},
    ],
    "release": [{"model": "spectral", "images": 4}],
    "federation": {"quorum": 1},
}


@pytest.fixture(scope="module", params=[False, True], ids=["together", "by_site"])
def plan(request) -> Plan:
    value = copy.deepcopy(PLAN)
    for stage in value["stages"]:
        if stage["kind"] in {"spectral", "appearance", "codec"}:
            stage["by_site"] = request.param
    assert {stage["kind"] for stage in value["stages"]} == set(GENERATORS), "every generator has a stage here"
    return parse(value, Plan, "plan")


def cohort(seed: int) -> Cohort:
    rng = np.random.default_rng(seed)
    patient_index = np.repeat(np.arange(30), 2)
    images = rng.integers(0, 256, (60, 16, 16)).astype(np.uint8)
    return Cohort(images, rng.integers(0, 2, 60), patient_index)


@pytest.fixture(scope="module")
def rounds(plan) -> dict[str, dict[str, object]]:
    """One real round of every stage: what a site was sent, what it sent back and ran, and the model after it."""
    released, found = {}, {}
    for stage in plan.stages:
        strategy = strategy_of(plan, stage, released)
        replies, sent = {}, {}
        for number, site in enumerate(plan.sites):
            noise, sent = TestNoise(number), strategy.outbound(1, site)
            recorder = NoiseRecorder(noise, "entry")
            replies[site] = dict(train(StageJob(plan, site, stage, 1, sent, cohort(number), noise, recorder)))
            assert same_mechanisms([stage.event], recorder.executed), "what ran is what a round costs"
            EXCHANGES[stage.kind].check_reply(plan, site, replies[site])
        strategy.absorb(1, copy.deepcopy(replies), torch.Generator().manual_seed(0))
        released[stage.kind] = strategy.released()
        found[stage.kind] = {
            "sent": sent,
            "returned": replies["alder"],
            "released": strategy.released(),
            "next": strategy.outbound(2, "alder"),
        }
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_what_travels_is_what_the_record_says(plan, rounds, kind):
    record = GENERATORS[kind]
    schemas = {"sent": record.sent(plan), "returned": record.returned(plan), "released": record.released(plan)}
    for what, schema in schemas.items():
        arrays = rounds[kind][what]
        assert arrays.keys() == schema.keys(), what
        assert all(schema[name].matches(value) and schema[name].sound(value) for name, value in arrays.items())
    assert schemas["returned"], "a round that returns nothing costs for nothing"
    assert not schemas["returned"].keys() & (schemas["sent"].keys() | schemas["released"].keys())
    assert schemas["released"].keys() >= GENERATORS["spectral"].released(plan).keys()


@pytest.mark.parametrize("patients", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_has_the_same_form_however_few_patients_there_are(plan, rounds, kind, patients):
    """A site that cannot answer for want of a patient tells, uncharged, that the patient is gone."""
    some = cohort(0)
    rows = np.flatnonzero(some.patient_index < patients)
    few = Cohort(some.images[rows], some.labels[rows], some.patient_index[rows])
    noise, stage = TestNoise(5), plan.stage(kind)
    recorder = NoiseRecorder(noise, "entry")
    arrays = train(StageJob(plan, "alder", stage, 1, rounds[kind]["sent"], few, noise, recorder))
    schema = GENERATORS[kind].returned(plan)
    assert arrays.keys() == schema.keys()
    assert all(schema[name].matches(value) and schema[name].sound(value) for name, value in arrays.items())
    assert same_mechanisms([stage.event], recorder.executed)


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_are_weights_of_its_networks_or_fixed_ones_of_a_kind(plan, kind):
    record = GENERATORS[kind]
    for schema in (record.sent(plan), record.released(plan)):
        parts = {name.partition("/")[0] for name in schema}
        assert parts <= set(record.networks) | {"spectral", kind}
        for part in parts & set(record.networks):
            own = {name: spec for name, spec in schema.items() if name.startswith(f"{part}/")}
            assert own == weights_schema(plan, {part: record.networks[part]}), "a network travels whole"
    if UPDATE in record.returned(plan):
        some = itertools.chain.from_iterable(
            itertools.combinations(record.networks, count) for count in range(1, 1 + len(record.networks))
        )
        choices = [update_schema(plan, {name: NETWORKS[name] for name in names}) for names in some]
        assert record.returned(plan) in choices, "an update is of whole networks"


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_networks_couple_no_records_by_buffers(plan, name):
    assert not list(NETWORKS[name](plan).buffers())


@pytest.mark.parametrize("kind", KINDS)
def test_names_resolve_to_what_stands_on_either_side(kind):
    record = GENERATORS[kind]
    assert record.trainer.startswith("sfumato_client.training.") and callable(import_named(record.trainer))
    assert record.strategy.startswith("sfumato_server.rounds.strategies.")
    methods = [name for name in vars(Strategy) if not name.startswith("_")]
    assert methods and all(callable(getattr(import_named(record.strategy), name)) for name in methods)
    if record.pretraining is not None:
        assert record.pretraining.startswith(f"sfumato_common.generators.{kind}.") and callable(
            import_named(record.pretraining)
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_round_moves_no_weight_further_than_the_record_says(plan, rounds, kind):
    record, stage = GENERATORS[kind], next(stage for stage in plan.stages if stage.kind == kind)
    for network in record.networks:
        assert max_displacement(stage, network, 0) == 0.0
        frozen = max_displacement(stage, network, 1) == 0.0
        assert frozen == (network in FROZEN)
        assert max_displacement(stage, network, 3) == pytest.approx(3 * max_displacement(stage, network, 1))
        start = {name: v for name, v in rounds[kind]["sent"].items() if name.startswith(f"{network}/")}
        if not start:  # the coordinator alone trains it
            start = to_arrays(network, initial_model(network, plan))
        after = {**rounds[kind]["released"], **rounds[kind]["next"]}
        moved = {name: value for name, value in after.items() if name in start}
        furthest = max_displacement(stage, network, 1) + start_displacement(plan, stage, network)
        assert moved.keys() == start.keys()
        assert within_displacement(start, moved, furthest)
        assert within_displacement(start, moved, 0.0) == frozen, "a round moves something, unless it may not"


@pytest.mark.parametrize("kind", KINDS)
def test_images_have_the_plans_form_and_follow_from_the_generator_alone(plan, rounds, kind):
    components = np.arange(3 * component_count(plan)) % component_count(plan)
    arrays = rounds[kind]["released"]
    draw = GENERATORS[kind].sampler(plan, arrays)
    with torch.no_grad():
        images = draw(torch.from_numpy(components), TorchDraws(torch.Generator().manual_seed(1)))
    assert images.shape == (len(components), 1, 16, 16)
    assert bool(((images >= -1.0) & (images <= 1.0)).all())
    one, two, other = (
        sample_images(plan, kind, arrays, components, TorchDraws(torch.Generator().manual_seed(seed)))
        for seed in (1, 1, 2)
    )
    assert np.array_equal(one, two)
    assert one.dtype == np.uint8 and one.shape == (len(components), 16, 16)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_a_space_to_walk_in_gives_images_of_codes_and_a_flow_gives_back_what_it_took(plan, rounds, kind):
    record, arrays, y = GENERATORS[kind], rounds[kind]["released"], torch.tensor([0, 1, 1])
    if record.latent is not None:
        space = record.latent(plan, arrays)
        codes, noise = space.draw(y, TorchDraws(torch.Generator().manual_seed(0)))
        assert not space.decode(codes, y, noise).requires_grad, "weights of a space are not to be trained further"
        assert space.decode(codes, y, noise).shape == (3, 1, 16, 16)
        assert space.encode(space.decode(codes, y), y).shape == codes.shape == space.centre(y).shape
    if record.flow is not None:
        flow, images = record.flow(plan, arrays), torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            latents, _ = flow(images, condition(plan, y))
            assert torch.allclose(flow.inverse(latents, condition(plan, y)), images, atol=1e-4)


def test_the_table_names_every_generator_by_its_kind_and_choice_and_features_are_none():
    assert [record.kind for record in GENERATORS.values()] == list(GENERATORS)
    assert set(EXCHANGES) - set(GENERATORS) == {CHOICE.kind, FEATURES.kind}
    assert not isinstance(CHOICE, Generator) and not isinstance(FEATURES, Generator)


def fields(record: Exchange) -> dict[str, object]:
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


@pytest.mark.parametrize("record", [FLOW, CHOICE], ids=lambda record: record.kind)
def test_no_field_of_a_record_can_be_left_out(record):
    for name in fields(record):
        with pytest.raises(TypeError, match=name):
            type(record)(**{key: value for key, value in fields(record).items() if key != name})


class _Priceless(StageSettings):
    kind: Literal["flow"]
    noise_multiplier: float


class _Noiseless(Strict):
    kind: Literal["flow"]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"kind": "flows"}, "those of another kind"),
        ({"kind": "Flow"}, "is no kind"),
        ({"kind": "flow/2"}, "is no kind"),
        ({"settings": GENERATORS["gan"].settings}, "those of another kind"),
        ({"settings": _Priceless}, "do not say what a round costs"),
        ({"settings": _Noiseless}, "states no noise multiplier"),
        ({"help": "A flow"}, "one sentence"),
        ({"trainer": "sfumato_client.training.flow.train_flow"}, "package.module:name"),
        ({"strategy": "FlowStrategy"}, "package.module:name"),
        ({"networks": {"Flow": NETWORKS["flow"]}}, "malformed name"),
        ({"networks": {}}, "bounds the displacement"),
        ({"max_displacement": None}, "bounds the displacement"),
        ({"pretraining": "flow"}, "is no name"),
    ],
)
def test_a_record_at_odds_with_itself_is_refused(changes, match):
    with pytest.raises(AssertionError, match=match):
        Generator(**{**fields(FLOW), **changes})


def test_an_unknown_kind_is_answered_with_the_nearest_right_one():
    value = copy.deepcopy(PLAN)
    value["stages"][3]["kind"] = "flo"
    with pytest.raises(ConfigError, match="there is no 'flo'; did you mean 'flow'"):
        parse(value, Plan, "plan")
