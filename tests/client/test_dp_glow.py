"""DP-GLOW, and the latents it shares with CADP: sensitivity, batch-invariance, public sizes, coordinates, cost."""

from __future__ import annotations

import math
import stat
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato_client.anonymise import ANONYMISERS, Job, Release, anonymise
from sfumato_client.anonymise.latent_report import latent_report, mechanism_of
from sfumato_client.anonymise.latents import (
    LatentCodec,
    coarse_first,
    drawn_places,
    noised_latents,
)
from sfumato_client.dataset import Cohort
from sfumato_common.accounting.accountant import epsilon
from sfumato_common.accounting.events import Declared, LocalGaussian, LocalLaplace, RandomisedResponse
from sfumato_common.generators import NETWORKS
from sfumato_common.generators.components import condition
from sfumato_common.generators.flow.matching import match_moments
from sfumato_common.generators.spectral.dct import dct_matrix, public_scale
from sfumato_common.generators.spectral.fit import fit_release
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.spectral.release import noised_release
from sfumato_common.generators.spectral.whitening import TAIL_TEMPERATURE, spectral_model
from sfumato_common.generators.starts import initial_model
from sfumato_common.generators.weights import load_network, to_arrays
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import PublishedStream, SecretStream, Streams
from sfumato_common.memory import VARIABLE
from sfumato_common.strict import parse
from sfumato_common.study.costs import release_events
from sfumato_common.study.latents import Cadp, DpGlow
from sfumato_common.study.plan import Plan
from sfumato_common.types import to_bytes, to_unit_range

SIZE, DIMENSIONS, DELTA = 16, 256, 1e-5
ITEM = {"method": "dp-glow", "images": 24, "radius": 40.0, "epsilon": 500.0, "coordinates": 64}
GAUSSIAN = {"mechanism": "gaussian", "clip": "l2", "epsilon": None, "noise_multiplier": 0.5}


class Silence:
    """No noise at all: what it lets through is what a patient moves."""

    test = True

    def normal(self, shape, scale):
        self.scale = scale
        return np.zeros(shape)

    laplace = normal

    def uniform(self, shape):
        return np.full(shape, 0.5)


class Watched(NoiseRecorder):
    """A recorder that keeps what it released."""

    def local_laplace(self, *terms):
        self.released = super().local_laplace(*terms)
        return self.released

    def local_gaussian(self, *terms):
        self.released = super().local_gaussian(*terms)
        return self.released


def plan_with(architecture="glow", channels=1, **item):
    dp = {"rounds": 1, "local_steps": 1, "sampling_rate": 0.2, "clipping_norm": 1.0, "noise_multiplier": 1.0}
    return parse(
        {
            "study": "small",
            "image": {"size": SIZE, "channels": channels},
            "labels": ["normal", "opacity"],
            "sites": {"alder": {"nominal_patients": 1000}, "birch": {"nominal_patients": 1000}},
            "privacy": {"epsilon": 10.0, "delta": DELTA},
            "stages": [
                {"kind": "spectral", "bandwidth": 8, "clip_radius": 4.0, "spread_radius": 3.0, "noise_multiplier": 0.5},
                {
                    "kind": "flow",
                    "architecture": architecture,
                    "levels": 2,
                    "steps_per_level": 2,
                    "hidden": 8,
                    "learning_rate": 1e-3,
                    **dp,
                },
            ],
            "release": [{**ITEM, **item}],
            "federation": {"quorum": 1},
        },
        Plan,
        "test",
    )


def blobs(plan, count, seed=0):
    """Smooth random images uint8 whose brightness depends on the label."""
    rng = np.random.default_rng(seed)
    labels, matrix = rng.integers(0, 2, count), dct_matrix(SIZE)
    coefficients = rng.normal(size=(count, plan.image.channels, SIZE, SIZE)) * public_scale(SIZE)
    coefficients[:, :, 0, 0] += 0.2 * SIZE * (labels[:, None] - 0.5)
    return to_bytes(matrix.T @ coefficients @ matrix), labels


def models_of(plan):
    """A spectral model of 400 images, and a flow whose every weight is off the start; one for each form of plan."""
    return _models(plan.stage("flow").architecture, plan.image.channels)


@cache
def _models(architecture, channels):
    plan = plan_with(architecture, channels)
    images, labels = blobs(plan, 400, seed=9)
    release = noised_release(Layout.of(plan), 0.01, images, labels, np.ones(400), lambda part, s, m: part)
    spectral = {f"spectral/{name}": value for name, value in fit_release(plan, {"alder": release}).items()}
    flow = initial_model("flow", plan)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.1 * torch.randn_like(parameter) / max(1, parameter[0].numel()) ** 0.5
    return {"spectral": spectral, "flow": {**spectral, **to_arrays("flow", flow)}}


def cohort_of(plan, patients, seed=1, images_each=2):
    images, labels = blobs(plan, patients * images_each, seed)
    return Cohort(images, labels, np.repeat(np.arange(patients), images_each))


def job_of(plan, cohort, seed=3, noise=None, **more):
    return Job(
        Release(plan, "alder", models_of(plan), cohort, **more),
        plan.release[0],
        Streams.of(TestNoise(seed)),
        Watched(noise or TestNoise(seed), "entry"),
    )


def changed(job: Job, **terms) -> Job:
    """The job in a release of its own that differs in `terms`, and shares nothing with the first."""
    return replace(job, release=replace(job.release, **{"shared": {}, **terms}))


def codec_of(plan):
    """One codec for each form of plan: none of it depends on the item."""
    return _codec(plan.stage("flow").architecture, plan.image.channels)


@cache
def _codec(architecture, channels):
    plan = plan_with(architecture, channels)
    return LatentCodec(plan, "flow", models_of(plan)["flow"], "alder")


def through(job):
    """Rows that leave the mechanism, one for each place, and the places."""
    places = drawn_places(job)
    noised_latents(job, codec_of(job.plan), places)
    return job.recorder.released, places


def with_record(cohort, patient, image):
    images, labels, patient_index = (part.copy() for part in cohort.everything())
    images[patient_index == patient] = image
    return Cohort(images, labels, patient_index)


@pytest.mark.parametrize("architecture", ["glow", "cinn"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_set_is_what_the_plan_asks_for_and_what_was_charged(architecture, channels):
    plan = plan_with(architecture, channels)
    job = job_of(plan, cohort_of(plan, 40))
    found = anonymise(job)
    assert found.images.shape == (24, SIZE, SIZE) + ((3,) if channels == 3 else ()) and found.images.dtype == np.uint8
    assert (found.method, found.model, found.guarantee, found.patients) == ("dp-glow", "flow", "formal", 1)
    assert list(found.spends) == [LocalLaplace(500.0)]
    charged = release_events(plan, job.item)
    assert [event for event in charged if not isinstance(event, Declared)] == list(found.spends)
    again = anonymise(job_of(plan, cohort_of(plan, 40)))
    assert np.array_equal(again.images, found.images) and np.array_equal(again.labels, found.labels)
    other = anonymise(job_of(plan, cohort_of(plan, 40), seed=4))
    assert not np.array_equal(other.images, found.images)
    source = {image.tobytes() for image in cohort_of(plan, 40).images}
    assert not source & {image.tobytes() for image in found.images}


def test_gaussian_noise_runs_as_charged():
    plan = plan_with(**GAUSSIAN, radius=8.0)
    found = anonymise(job_of(plan, cohort_of(plan, 40)))
    assert list(found.spends) == [LocalGaussian(0.5)] == release_events(plan, plan.release[0])[:1]


def test_the_methods_are_in_the_table():
    assert {"dp-glow", "cadp"} <= set(ANONYMISERS)


@pytest.mark.parametrize("patients", [0, 1, 5, 24, 60])
def test_the_output_does_not_tell_the_number_of_patients(patients):
    plan = plan_with()
    images, labels = blobs(plan, max(patients, 1))
    labels[:] = 1  # label 0 is empty, too
    cohort = Cohort(images[:patients], labels[:patients], np.arange(patients))
    job = job_of(plan, cohort)
    found = anonymise(job)
    assert len(found.images) == len(found.labels) == 24
    assert set(np.unique(found.labels)) <= {0, 1}
    released, places = through(job_of(plan, cohort, noise=Silence()))
    assert places.filled.sum() == min(patients, 24)
    # a place without a patient holds zero, and one with a patient does not
    assert np.array_equal(np.any(released != 0.0, axis=1), places.filled)
    if patients == 0:
        assert 0 < found.labels.sum() < 24  # drawn by the released shares


def test_every_patient_gives_one_record_at_most_and_any_patient_any_image_any_place():
    plan = plan_with(images=3)
    images = np.repeat(np.arange(8, dtype=np.uint8), SIZE * SIZE).reshape(8, SIZE, SIZE)  # two of each of four patients
    cohort = Cohort(images, np.zeros(8, dtype=np.int64), np.arange(8) // 2)
    counts = np.zeros((3, 8))
    for seed in range(400):
        places = drawn_places(job_of(plan, cohort, seed=seed))
        drawn = places.images[:, 0, 0].astype(int)
        assert len(set(drawn // 2)) == 3
        counts[np.arange(3), drawn] += 1
    expected = 400 / 8
    assert ((counts - expected) ** 2 / expected).sum() < 60.0  # 24 cells; chi-squared beyond 60 has odds below 1e-4


def test_patients_land_in_random_places():
    plan = plan_with(images=20)
    filled = sum(drawn_places(job_of(plan, cohort_of(plan, 5), seed=seed)).filled.astype(int) for seed in range(100))
    assert filled.sum() == 500 and filled.min() > 8 and filled.max() < 48


def test_shuffling_is_uniform():
    secret = SecretStream(TestNoise(0))
    orders = [tuple(secret.permutation(3).tolist()) for _ in range(1200)]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 6 and min(counts) > 140


def images_of_one():
    flat = st.integers(0, 255).map(lambda value: np.full((SIZE, SIZE), value, dtype=np.uint8))
    noise = st.integers(0, 2**32 - 1).map(
        lambda seed: np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
    )
    board = st.integers(1, 8).map(
        lambda side: (np.indices((SIZE, SIZE)).sum(axis=0) // side % 2 * 255).astype(np.uint8)
    )
    return st.one_of(flat, noise, board)


TERMS = st.sampled_from(
    [
        {"clip": "l1", "radius": 3.0},
        {"clip": "l1", "radius": 900.0, "coordinates": None},
        {"clip": "elementwise", "radius": 0.4},
        {"clip": "elementwise", "radius": 3.0, "coordinates": None},
        {**GAUSSIAN, "radius": 2.0},
        {**GAUSSIAN, "radius": 200.0, "coordinates": 7},
    ]
)


@given(images_of_one(), images_of_one(), TERMS, st.sampled_from(["glow", "cinn"]), st.integers(0, 11))
@settings(max_examples=25, deadline=None)
def test_a_patients_record_moves_one_row_and_no_further_than_the_noise_covers(one, other, terms, architecture, patient):
    plan = plan_with(architecture, images=8, **terms)
    item, cohort, silence = plan.release[0], cohort_of(plan, 12), Silence()
    first, places = through(job_of(plan, with_record(cohort, patient, one), noise=silence))
    second, others = through(job_of(plan, with_record(cohort, patient, other), noise=silence))
    assert np.array_equal(places.filled, others.filled) and np.array_equal(places.labels, others.labels)
    moved = np.flatnonzero(np.any(first != second, axis=1))
    assert len(moved) <= 1
    change = np.abs(first - second).max(axis=0)
    if item.mechanism == "gaussian":
        assert np.linalg.norm(change) <= min(2.001 * item.radius, silence.scale / item.noise_multiplier)
    else:
        width = item.coordinates or DIMENSIONS
        bound = 2.0 * item.radius * (width if item.clip == "elementwise" else 1)
        assert change.sum() <= min(1.001 * bound, silence.scale * item.epsilon * (1 + 1e-12))
        assert change.max() <= 2.001 * item.radius


@pytest.mark.parametrize("architecture", ["glow", "cinn"])
def test_a_latent_is_of_its_own_record_to_the_last_bit(architecture):
    plan = plan_with(architecture, channels=3)
    codec = codec_of(plan)
    images, labels = blobs(plan, 6)
    alone = codec.encode(images, labels, 40, SecretStream(TestNoise(1)))
    images[2] = 255 - images[2]
    beside = codec.encode(images, 1 - labels, 40, SecretStream(TestNoise(1)))
    labels[2] = 1 - labels[2]
    other = codec.encode(images, labels, 40, SecretStream(TestNoise(1)))
    kept = np.arange(6) != 2
    assert np.array_equal(alone[kept], other[kept])
    assert np.abs(alone[2] - other[2]).max() > 1e-2
    assert (np.abs(beside[kept] - other[kept]).max(axis=1) > 1e-2).all()  # the condition counts


@pytest.mark.parametrize("log_scale", [200.0, -200.0])
def test_a_flow_that_diverged_leaves_nothing_but_noise_and_sound_images(log_scale):
    plan = plan_with()
    job = job_of(plan, cohort_of(plan, 30))
    arrays = {name: value.copy() for name, value in job.models["flow"].items()}
    arrays["flow/levels.0.0.log_scale"][:] = log_scale
    with np.errstate(invalid="raise"):  # a pixel that is not a number is cast to anything
        found = anonymise(changed(job, models={**job.models, "flow": arrays}))
    assert found.images.shape == (24, SIZE, SIZE)
    assert np.isfinite(job.recorder.released).all()


def test_coordinates_that_are_not_released_are_drawn_anew_as_samples_are():
    plan, keep = plan_with(), 10
    codec, count = codec_of(plan), 200
    rows, labels = np.tile(np.linspace(-1.0, 1.0, keep), (count, 1)), np.arange(count) % 2
    images = codec.decode(rows, labels, PublishedStream(TestNoise(1)))
    back = codec.encode(images, labels, DIMENSIONS, SecretStream(TestNoise(2)))
    place = coarse_first(SIZE, 1)
    within = (place // SIZE < 8) & (place % SIZE < 8)
    assert np.median(np.abs(back[:, :keep] - rows)) < 0.1
    assert np.median(back[:, keep:][:, within[keep:]].std(axis=0)) == pytest.approx(1.0, rel=0.15)
    assert np.median(back[:, ~within].std(axis=0)) < 0.6


def test_coordinates_are_an_orthonormal_basis_coarsest_first():
    for size, channels in ((16, 1), (16, 3), (28, 3)):
        order = coarse_first(size, channels)
        assert np.array_equal(np.sort(order), np.arange(channels * size**2))
        channel, down, across = order // size**2, order // size % size, order % size
        assert list(channel[:channels]) == list(range(channels))
        squares = down**2 + across**2
        assert (np.diff(squares) >= 0).all()  # the power law falls with the frequency
    plan = plan_with()
    arrays = models_of(plan)["flow"]
    spectral, flow = spectral_model(plan, arrays), load_network("flow", NETWORKS["flow"], plan, arrays)
    images, labels = blobs(plan, 5)
    codec = codec_of(plan)
    rows = codec.encode(images, labels, DIMENSIONS, SecretStream(TestNoise(2)))
    with torch.no_grad():
        noise = SecretStream(TestNoise(2)).uniform((5, 1, SIZE, SIZE)) - 0.5
        x, y = torch.from_numpy(to_unit_range(images)) + noise * (2.0 / 255), torch.from_numpy(labels)
        z = flow.latent(match_moments(plan, spectral, flow, [0, 1]).encode(x, y)[0], condition(plan, y))
    assert np.linalg.norm(rows, axis=1) == pytest.approx(z.norm(dim=1).numpy(), rel=1e-5)
    assert rows[:, 0] * SIZE == pytest.approx(z.sum(dim=1).numpy(), abs=1e-3)  # the first is the mean brightness
    fewer = codec.encode(images, labels, 10, SecretStream(TestNoise(2)))
    assert np.array_equal(fewer, rows[:, :10])


@pytest.mark.parametrize("architecture", ["glow", "cinn"])
@pytest.mark.parametrize("channels", [1, 3])
def test_decoding_all_coordinates_without_noise_gives_the_record(architecture, channels):
    plan = plan_with(architecture, channels)
    codec, streams = codec_of(plan), Streams.of(TestNoise(0))
    images, labels = blobs(plan, 6)
    rows = codec.encode(images, labels, channels * DIMENSIONS, streams.secret)
    back = codec.decode(rows, labels, streams.published)
    assert np.abs(back.astype(int) - images).max() <= 1


@pytest.mark.parametrize("architecture", ["glow", "cinn"])
def test_coarse_coordinates_carry_more_of_an_image_than_the_last_splits_or_any_others(architecture):
    plan, keep = plan_with(architecture), 48
    codec, streams = codec_of(plan), Streams.of(TestNoise(0))
    images, labels = blobs(plan, 60, seed=5)
    rows = codec.encode(images, labels, DIMENSIONS, streams.secret)
    flow = codec._flow

    def error(rows):
        return np.square(codec.decode(rows, labels, streams.published).astype(float) - images).mean()

    shuffle = np.random.default_rng(0).permutation(DIMENSIONS)[keep:]
    coarse, some = rows.copy(), rows.copy()
    coarse[:, keep:], some[:, shuffle] = 0.0, 0.0
    with torch.no_grad():
        latents = flow._flat(codec._image(torch.from_numpy(rows).float()))
        latents[:, keep:] = 0.0
        last = codec._flat(flow._unflat(latents)).double().numpy()
    assert error(coarse) < 0.6 * error(some)
    assert error(coarse) < 0.6 * error(last)


def distances(plan, seeds=3):
    """Mean distance of outputs to their own record, and to other patients' of the same label, over a few seeds."""
    own, other = [], []
    for seed in range(seeds):
        cohort = cohort_of(plan, 24, images_each=1)
        places = drawn_places(job_of(plan, cohort, seed=seed))  # under the same seed, the same patients in each place
        found = anonymise(job_of(plan, cohort, seed=seed)).images.astype(float)
        apart = np.abs(found[:, None] - places.images[None]).mean(axis=(2, 3))
        same = places.labels[:, None] == places.labels[None]
        own.append(np.diag(apart).mean())
        other.append(apart[same & ~np.eye(24, dtype=bool)].mean())
    return float(np.mean(own)), float(np.mean(other))


@pytest.mark.parametrize("clip", ["l1", "elementwise"])
def test_outputs_come_nearer_to_their_records_as_epsilon_grows(clip):
    radius = 220.0 if clip == "l1" else 3.0
    found = [
        distances(plan_with(clip=clip, radius=radius, epsilon=epsilon, coordinates=None, label="public"), seeds=1)[0]
        for epsilon in (1.0, 1e3, 1e4, 1e5, 1e8)
    ]
    assert all(one > 1.05 * two for one, two in pairwise(found))
    assert found[-1] < 2.0


def test_at_a_small_epsilon_an_output_is_no_nearer_to_its_own_record_than_to_anothers():
    plan = plan_with(epsilon=8.0, radius=40.0, coordinates=64)
    assert latent_report(plan.release[0], DIMENSIONS, DELTA, 2).prior_only
    own, other = distances(plan)
    assert own == pytest.approx(other, rel=0.06)
    near, far = distances(plan_with(epsilon=1e6, radius=40.0, coordinates=64))
    assert near < 0.8 * far


@pytest.mark.parametrize(
    "terms",
    [
        {"clip": "l1", "radius": 20.0, "epsilon": 200.0},
        {"clip": "l1", "radius": 1e3, "epsilon": 1e4},
        {"clip": "elementwise", "radius": 1.0, "epsilon": 64.0},
        {"clip": "elementwise", "radius": 4.0, "epsilon": 1e6},
        {**GAUSSIAN, "radius": 4.0},
        {**GAUSSIAN, "radius": 400.0},
    ],
)
def test_noised_latents_get_the_priors_spread_back(terms):
    plan = plan_with(**{**terms, "coordinates": None, "images": 900})
    item, codec = plan.release[0], codec_of(plan)
    rows = np.random.default_rng(0).normal(size=(900, DIMENSIONS))
    mechanism, recorder = mechanism_of(item, DIMENSIONS), job_of(plan, cohort_of(plan, 2)).recorder
    spread = (mechanism.released(rows, recorder) * codec.gains(item)).std(axis=0)
    place = coarse_first(SIZE, 1)
    within = (place // SIZE < 8) & (place % SIZE < 8)
    noise, signal = mechanism.noise**2, mechanism.signal**2
    share = signal / (signal + noise)
    assert spread[within].mean() == pytest.approx(1.0, rel=0.03)
    assert spread[~within].mean() == pytest.approx(math.sqrt(share + (1 - share) * TAIL_TEMPERATURE**2), rel=0.03)


def test_the_report_says_the_total_first_and_the_coordinates_share_second():
    item = plan_with(clip="elementwise", radius=3.0, epsilon=640.0, coordinates=64).release[0]
    report = latent_report(item, DIMENSIONS, DELTA, 2)
    assert report.total == pytest.approx(report.each * report.coordinates) == 640.0
    # b = 2c / eps_0 (methods.md, section 4), and the noise's deviation is sqrt(2) b
    assert report.noise == pytest.approx(math.sqrt(2.0) * 2.0 * 3.0 / report.each)
    lines = report.text.splitlines()
    assert lines[0].startswith("eps_total 640 (pure") and "unit patient" in lines[0] and "replace-one" in lines[0]
    assert lines[1].startswith("eps per coordinate 10 ")
    assert "64 of 256 coordinates are released, 192 are drawn from the prior" in report.text
    assert report.signal_to_noise == pytest.approx(report.signal / report.noise) and not report.prior_only
    # the paper's scale at 128 x 128: noise as wide as the latents costs 1.4e5 in all
    wide = DpGlow(method="dp-glow", images=1, clip="elementwise", radius=3.0, epsilon=16384 * 6.0 * math.sqrt(2.0))
    assert latent_report(wide, 16384, DELTA, 2).noise == pytest.approx(1.0)
    assert latent_report(wide, 16384, DELTA, 2).total == pytest.approx(1.39e5, rel=1e-2)


@pytest.mark.parametrize(("epsilon", "prior"), [(8.0, True), (1e6, False)])
def test_the_report_says_when_the_output_is_a_prior_sample(epsilon, prior):
    report = latent_report(plan_with(epsilon=epsilon, coordinates=None).release[0], DIMENSIONS, DELTA, 2)
    assert ("essentially a prior sample" in report.text) == prior == report.prior_only
    assert f"eps per coordinate {epsilon / 256:.6g} " in report.text


def test_the_report_of_gaussian_noise_is_the_accountants_at_the_plans_delta():
    item = plan_with(**GAUSSIAN, radius=8.0).release[0]
    report = latent_report(item, DIMENSIONS, DELTA, 2)
    assert report.total == epsilon([LocalGaussian(0.5)], DELTA)
    assert report.each == epsilon([LocalGaussian(0.5 * 8.0)], DELTA)
    assert "at delta 1e-05" in report.text.splitlines()[0]
    conditional = Cadp(
        method="cadp", images=4, radius=8.0, label_epsilon=1.0, mechanism="gaussian", clip="l2", noise_multiplier=0.5
    )
    both = latent_report(conditional, DIMENSIONS, DELTA, 2)
    assert both.total == epsilon([LocalGaussian(0.5), RandomisedResponse(2, 1.0)], DELTA) > report.total
    assert "epsilon 1 of it" in both.text


def test_the_report_is_left_for_the_steward_alone(tmp_path):
    plan = plan_with()
    anonymise(job_of(plan, cohort_of(plan, 30), steward_folder=tmp_path))
    (left,) = tmp_path.iterdir()
    assert left.name == "dp-glow-flow.txt" and stat.S_IMODE(left.stat().st_mode) == 0o600
    assert left.read_text() == latent_report(plan.release[0], DIMENSIONS, DELTA, 2).text


@pytest.mark.parametrize("architecture", ["glow", "cinn"])
def test_latents_and_images_have_the_same_bits_with_little_and_much_memory(architecture, monkeypatch):
    plan = plan_with(architecture)
    codec, (images, labels), found = codec_of(plan), blobs(plan, 40), []
    for budget in ("1", "64GiB"):
        monkeypatch.setenv(VARIABLE, budget)
        rows = codec.encode(images, labels, 64, SecretStream(TestNoise(1)))
        found.append((rows, codec.decode(rows, labels, PublishedStream(TestNoise(2)))))
    for few, many in zip(*found, strict=True):
        assert np.array_equal(few, many)
