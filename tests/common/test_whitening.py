"""Whitening by codes: small images whatever the pixels, the released Gaussian for a network that does nothing."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from support.plans import dp_sgd

from sfumato_client.dataset.cohort import Cohort
from sfumato_client.site.inbound import Seen
from sfumato_client.training import StageJob, train
from sfumato_client.training.whitened import CodedCohort
from sfumato_common.accounting.events import same_mechanisms
from sfumato_common.codec.network import lowest
from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators import GENERATORS
from sfumato_common.generators.codec.schemas import AUTOENCODER
from sfumato_common.generators.sampling import sample_images
from sfumato_common.generators.schemas import weights_schema
from sfumato_common.generators.settings import white_form
from sfumato_common.generators.starts import start_key
from sfumato_common.generators.white_form import WhiteForm
from sfumato_common.generators.whitening import whitening_of
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import SecretStream
from sfumato_common.phantom import arrays as phantom
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.types import fingerprint, values_of
from sfumato_server.coordinator.pretraining import pretrain, public_cohorts, public_release
from sfumato_server.rounds.strategies import strategy_of

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
CODEC = {
    "kind": "codec",
    "noise_multiplier": 0.02,
    "form": {"size": 32, "cosines": 64, "kept": 24, "width": 8, "encoder_blocks": 1, "decoder_blocks": 1},
}
APPEARANCE = {"kind": "appearance", "noise_multiplier": 0.02, "phantoms": 8, "coefficients": 32}
FIRST = {"codec": CODEC, "appearance": APPEARANCE}
FLOW = {"kind": "flow", "levels": 2, "steps_per_level": 2, "hidden": 8, **dp_sgd(rounds=2)}
DIFFUSION = {"kind": "diffusion", "width": 16, "depth": 1, "sampling_steps": 3, **dp_sgd(rounds=2)}
PLAN = {
    "study": "codes",
    "image": {"size": 32, "channels": 1},
    "labels": ["normal", "opacity"],
    "sites": {"alder": {"nominal_patients": 60}},
    "privacy": {"epsilon": 1000.0, "delta": 1.0e-5},
    "release": [{"model": "flow", "images": 4}],
    "federation": {"quorum": 1},
}


def values_with(*stages: dict[str, object], **changes: object) -> dict[str, object]:
    return {**copy.deepcopy(PLAN), "stages": [dict(stage) for stage in stages], **changes}


def plan_with(*stages: dict[str, object], **changes: object) -> Plan:
    return parse(values_with(*stages, **changes), Plan, "plan")


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return Cohort(*phantom(3, 60, 32))


@pytest.fixture(scope="module", params=sorted(FIRST))
def study(request, cohort):
    """A plan of both trained stages, and one round of every stage: what came, was answered and was released."""
    plan, released, found = plan_with(FIRST[request.param], FLOW, DIFFUSION), {}, {}
    for stage in plan.stages:
        strategy, noise = strategy_of(plan, stage, released), TestNoise(1)
        sent, recorder = strategy.outbound(1, "alder"), NoiseRecorder(noise, "entry")
        reply = dict(train(StageJob(plan, "alder", stage, 1, sent, cohort, noise, recorder)))
        assert same_mechanisms([stage.event], recorder.executed), "what ran is what a round costs"
        EXCHANGES[stage.kind].check_reply(plan, "alder", reply)
        strategy.absorb(1, {"alder": copy.deepcopy(reply)}, torch.Generator().manual_seed(0))
        released[stage.kind] = strategy.released()
        found[stage.kind] = {"sent": sent, "returned": reply, "released": strategy.released()}
    return plan, found


def draws(seed: int = 0) -> TorchDraws:
    return TorchDraws(torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kept", [1, 16, 64, 100, 1024])
def test_a_plane_holds_the_lowest_cosines_at_distinct_places(kept, channels):
    form = WhiteForm.of_numbers(channels, kept)
    assert form.size % 4 == 0 and form.shape == (channels, form.size, form.size)
    assert len(set(form.places.tolist())) == form.numbers == channels * kept
    down, across = lowest(256, kept)  # as a codec of any size orders them
    assert np.array_equal(form.places[:kept], down * form.size + across)


def test_weights_do_not_grow_with_the_pixels():
    def weights(size: int) -> dict[str, tuple[int, ...]]:
        codec = {**CODEC, "form": {**CODEC["form"], "size": size}}
        plan = plan_with(codec, FLOW, DIFFUSION, image={"size": size, "channels": 1})
        kinds = GENERATORS["flow"].networks, GENERATORS["diffusion"].networks
        return {name: spec.shape for own in kinds for name, spec in weights_schema(plan, own).items()}

    assert weights(32) == weights(256)


@pytest.mark.parametrize("kind", ["flow", "diffusion"])
def test_what_travels_is_what_the_schemas_say_and_patients_codes_are_not_among_it(study, kind):
    plan, found = study
    record = GENERATORS[kind]
    for what in ("sent", "returned", "released"):
        schema, arrays = getattr(record, what)(plan), found[kind][what]
        assert arrays.keys() == schema.keys()
        assert all(schema[name].matches(value) and schema[name].sound(value) for name, value in arrays.items())
    assert list(found[kind]["returned"]) == ["update"]
    assert found[kind]["sent"].keys() >= GENERATORS[plan.base].released(plan).keys()


@pytest.mark.parametrize("kind", ["flow", "diffusion"])
@pytest.mark.parametrize("patients", [0, 1])
def test_an_answer_has_the_same_form_however_few_patients_there_are(study, cohort, kind, patients):
    plan, found = study
    rows = np.flatnonzero(cohort.patient_index < patients)
    few = Cohort(cohort.images[rows], cohort.labels[rows], cohort.patient_index[rows])
    noise, stage = TestNoise(5), plan.stage(kind)
    recorder = NoiseRecorder(noise, "entry")
    arrays = train(StageJob(plan, "alder", stage, 1, found[kind]["sent"], few, noise, recorder))
    schema = GENERATORS[kind].returned(plan)
    assert all(schema[name].matches(arrays[name]) and schema[name].sound(arrays[name]) for name in schema)
    assert same_mechanisms([stage.event], recorder.executed)


@pytest.mark.parametrize("kind", ["flow", "diffusion"])
def test_trained_models_draw_images_of_the_plans_form(study, kind):
    plan, found = study
    components = np.arange(6) % 2
    images = sample_images(plan, kind, found[kind]["released"], components, draws())
    assert images.shape == (6, 32, 32) and images.dtype == np.uint8 and images.std() > 5
    again = sample_images(plan, kind, found[kind]["released"], components, draws())
    assert np.array_equal(images, again)


def test_codes_are_whitened_there_and_back(study, cohort):
    plan, found = study
    whitening = whitening_of(plan, found[plan.base]["released"])
    features = torch.from_numpy(whitening.records(cohort.images))
    y = torch.from_numpy(cohort.labels)
    u = whitening.white(whitening.spread(features, SecretStream(TestNoise(0))), y)
    assert u.shape == (len(features), *white_form(plan).shape)
    noise = whitening.draw_noise(len(y), draws())
    made, wanted = whitening.decode(u, y, *noise), whitening._coder.images(features, *noise)
    assert (made - wanted).abs().mean() < 0.02, "but for numbers beyond twenty deviations"
    other = whitening.white(whitening.spread(features, SecretStream(TestNoise(1))), y)
    assert torch.allclose(whitening.low(u), whitening.low(other), atol=1e-4), "the corner alone is drawn"
    assert not torch.allclose(u, other)


def test_networks_that_do_nothing_draw_the_first_release(study):
    """Standard normal features, whatever is drawn in the corner."""
    plan, found = study
    whitening, count = whitening_of(plan, found[plan.base]["released"]), 4000
    y = torch.zeros(count, dtype=torch.int64)
    z = whitening.low(whitening.draw_latent(y, draws()))
    assert z.mean(dim=0).abs().max() < 0.08 and (z.std(dim=0) - 1.0).abs().max() < 0.06


def test_a_record_is_whitened_by_itself_alone(study, cohort):
    plan, found = study
    whitening = whitening_of(plan, found[plan.base]["released"])
    alone = whitening.records(cohort.images[:1])
    assert np.array_equal(alone, whitening.records(cohort.images[:20])[:1])
    coded = CodedCohort.of(cohort, whitening)
    mine, labels = coded.images_of(3)
    images, own = cohort.images_of(3)
    assert np.array_equal(mine, whitening.records(images)) and np.array_equal(labels, own)
    assert coded.patients == cohort.patients and mine.dtype == np.float32


def test_one_patient_moves_a_sum_of_gradients_by_the_clipping_norm_at_most(study, cohort):
    """Whole steps without noise on two neighbouring cohorts: the summed, clipped gradient is all that differs."""
    from sfumato_client.training.dp.engines import private_engine
    from sfumato_common.generators.components import condition
    from sfumato_common.generators.flow.flows import flow_loss
    from sfumato_common.generators.flow.sampler import released_flow

    plan, found = study
    flow = released_flow(plan, found["flow"]["released"])
    whitening = whitening_of(plan, found[plan.base]["released"])
    secret, y = SecretStream(TestNoise(0)), torch.from_numpy(cohort.labels[:8])
    values = torch.from_numpy(values_of(whitening.records(cohort.images[:8])))
    u = whitening.white(whitening.spread(values, secret), y)
    engine = private_engine(flow, flow_loss, "auto", (white_form(plan).shape, (2,)))
    norm, parts = 0.1, (u, condition(plan, y))

    def total(weights: torch.Tensor) -> torch.Tensor:
        clipped = engine.clipped_sum(parts, norm, weights[:, None])
        return torch.cat([part.flatten() for part in clipped])

    everyone = torch.ones(8)
    without = everyone.clone()
    without[5] = 0.0
    moved = (total(everyone) - total(without)).norm()
    assert 0.0 < moved <= norm * (1 + 1e-4)


def test_a_site_takes_no_other_codec_with_a_flow(study, tmp_path):
    plan, found = study
    if plan.base != "codec":
        pytest.skip("the appearance release has no network")
    seen, stage, sent = Seen(tmp_path, plan), plan.stage("flow"), found["flow"]["sent"]
    seen.check_round(stage, 1, sent)
    name = next(name for name in sorted(sent) if name.startswith(f"{AUTOENCODER}/"))
    with pytest.raises(VerificationError, match="public one"):
        seen.check_round(stage, 1, {**sent, name: sent[name] + 1e-2})
    final = {kind: found[kind]["released"] for kind in ("codec", "flow")}
    seen.check_release(final)
    crafted = {**final["flow"], name: final["flow"][name] + 1e-2}
    with pytest.raises(VerificationError, match="public one"):
        seen.check_release({**final, "flow": crafted})


def test_starts_are_trained_on_public_codes_of_the_pinned_codec(tmp_path):
    bare = plan_with(CODEC, FLOW, DIFFUSION)
    from sfumato_common.generators.starts import initial_model
    from sfumato_common.generators.weights import to_arrays

    network = to_arrays(AUTOENCODER, initial_model(AUTOENCODER, bare))
    pinned = {**CODEC, "start": {"source": "phantom", "sha256": fingerprint(network)}}
    plan = plan_with(pinned, FLOW, DIFFUSION)
    cohorts = public_cohorts(plan, "phantom", 20, 0)
    released = public_release(plan, cohorts, np.random.default_rng(0), network)
    assert released.keys() == GENERATORS["codec"].released(plan).keys()
    for kind in ("flow", "diffusion"):
        weights, losses = pretrain(plan, kind, "phantom", steps=12, patients=20, network=network)
        assert set(weights) == set(weights_schema(plan, GENERATORS[kind].networks)) and len(losses) == 12
    with pytest.raises(VerificationError):
        pretrain(plan, "flow", "phantom", steps=1, patients=20, network={k: v + 1 for k, v in network.items()})
    strategy = strategy_of(plan, plan.stage("codec"), {start_key("codec"): network})
    seen, flow = Seen(tmp_path, plan), strategy_of(plan, plan.stage("flow"), {"codec": released})
    seen.check_round(plan.stage("codec"), 1, strategy.outbound(1, "alder"))
    seen.check_round(plan.stage("flow"), 1, flow.outbound(1, "alder"))
    other = {name: value + 1e-3 if name.startswith(AUTOENCODER) else value for name, value in released.items()}
    with pytest.raises(VerificationError, match="pins"):
        seen.check_round(plan.stage("flow"), 1, {**flow.outbound(1, "alder"), **other})


@pytest.mark.parametrize("kind", ["gan", "stylegan2", "embedding"])
def test_what_needs_pixels_is_refused_after_codes(kind):
    stage = {"gan": {"generator_steps": 1, "fakes": 8}, "stylegan2": {"fakes": 8}, "embedding": {}}[kind]
    terms = {"noise_multiplier": 1.0} if kind == "embedding" else dp_sgd(rounds=1)
    with pytest.raises(ConfigError, match="starts from the spectral model"):
        plan_with(CODEC, {"kind": kind, **stage, **terms}, release=[{"model": kind, "images": 4}])


def test_plans_that_cannot_work_on_codes_are_refused_with_the_reason():
    with pytest.raises(ConfigError, match=r"12 places a side of codec codes .* 2\^levels"):
        plan_with(CODEC, {**FLOW, "levels": 3})
    with pytest.raises(ConfigError, match=r"12 places a side of codec codes .* patch = 8"):
        plan_with(CODEC, {**DIFFUSION, "patch": 8}, release=[{"model": "diffusion", "images": 4}])
    item = {"method": "dp-glow", "images": 4, "radius": 1.0, "epsilon": 1.0}
    plan_with(CODEC, FLOW, release=[{**item, "coordinates": 64}])
    with pytest.raises(ConfigError, match="more than a latent's 64"):
        plan_with(CODEC, FLOW, release=[{**item, "coordinates": 65}])
    choice = {"kind": "choice", "noise_multiplier": 1.0}
    with pytest.raises(ConfigError, match="choice"):
        plan_with(CODEC, FLOW, choice, release=[{"model": "best", "images": 4}])
