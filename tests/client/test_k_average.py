"""Averages of k patients: what one patient can move under the formal method, what never shows, and k-same."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections import Counter
from functools import cache
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato_client.anonymise import anonymise
from sfumato_client.anonymise.contract import Job, Release
from sfumato_client.anonymise.groups import groups_of
from sfumato_client.anonymise.inversion import inverter_of, patient_labels, space_of
from sfumato_client.anonymise.patients import encode_patients, patients_of
from sfumato_client.dataset import Cohort
from sfumato_common.accounting.events import KAverageGaussian
from sfumato_common.errors import DataError
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.starts import initial_model
from sfumato_common.generators.weights import to_arrays
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.mechanisms.grid import grid_of
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import SecretStream, Streams
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.release import DpKAverage, KSame

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
# the package's name for it is the function's
formal = importlib.import_module("sfumato_client.anonymise.dp_k_average")
CODES, RADIUS, K = 16, 2.0, 4
SHARES = (0.7, 0.3)


class NoNoise:
    """A source of noise that is zero."""

    test = True

    def normal(self, shape, scale):
        return np.zeros(shape)

    uniform = laplace = normal


@cache
def plan_of(private: bool = True) -> Plan:
    dp = {"rounds": 1, "local_steps": 1, "sampling_rate": 0.2, "clipping_norm": 1.0}
    noise = {"noise_multiplier": 1.0 if private else 0.001}
    value = {
        "study": "small",
        "image": {"size": 16},
        "labels": ["normal", "opacity"],
        "sites": {"alder": {"nominal_patients": 100}},
        "private": private,
        "privacy": {"epsilon": 10.0, "delta": 1e-5},
        "stages": [
            {"kind": "spectral", "bandwidth": 4, "clip_radius": 4.0, **noise},
            {"kind": "gan", "width": 8, "learning_rate": 0.001, **dp, **noise},
        ],
        "release": [{"model": "gan", "images": 4}],
        "federation": {"quorum": 1},
    }
    return parse(value, Plan, "test")


@cache
def released() -> dict[str, np.ndarray]:
    plan, rng = plan_of(), np.random.default_rng(0)
    d = Layout.of(plan).features
    basis = np.linalg.qr(rng.normal(size=(d, d)))[0]
    spectral = {
        "shares": np.array(SHARES),
        "mean": 0.3 * rng.normal(size=(2, d)),
        "factor": np.stack([0.1 * (basis * rng.uniform(0.5, 2.0, d)) @ basis.T] * 2),
        "signal": np.stack([np.eye(d)] * 2),
        "tail": np.ones(2),
    }
    arrays = {f"spectral/{name}": value.astype(np.float32) for name, value in spectral.items()}
    return {**arrays, **to_arrays("generator", initial_model("generator", plan))}


def cohort_of(*counts: int, seed: int = 0) -> Cohort:
    """So many patients a label, of one image each."""
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.random.default_rng(seed).integers(0, 256, (len(labels), 16, 16), dtype=np.uint8)
    return Cohort(images, labels, np.arange(len(labels)))


def job_of(cohort: Cohort, method: str = "dp-k-average", *, seed=0, noise=None, private=True, **terms) -> Job:
    quick = {"method": method, "images": 5, "k": K, "encoder_steps": 0, "refinement_steps": 0}
    if method == "dp-k-average":
        item = DpKAverage(**{**quick, "radius": RADIUS, "noise_multiplier": 1.0, **terms})
    else:
        item = KSame(**{**quick, **terms})
    models = {"gan": released(), "spectral": released()}
    streams = Streams.of(TestNoise(seed))
    return Job(
        Release(plan_of(private), "alder", models, cohort),
        item,
        streams,
        NoiseRecorder(noise or TestNoise(seed), "entry"),
    )


JOB = job_of(cohort_of(1, 1))


GROUP_LABELS = torch.tensor([0, 0, 0, 1, 1])


@cache
def centres_of_groups() -> torch.Tensor:
    return space_of(JOB).centre(GROUP_LABELS)


def means_of(codes: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The means [G, D] that noise would be added to, of patients with these codes in these places."""
    table = torch.from_numpy(codes.astype(np.float32))
    with mock.patch.object(formal, "code_of_patient", lambda inverter, cohort, patient, component: table[patient]):
        members = formal.offsets_of(JOB, inverter_of(JOB), places, GROUP_LABELS, centres_of_groups())
    return NoiseRecorder(NoNoise(), "entry").k_average(members, RADIUS, 1.0)


# what `gaussian_release` adds to the sensitivity it is given, for rounding to its grid
ROUNDING = grid_of(2.0 * RADIUS / K) * np.sqrt(5 * CODES)
LIMIT = 2.0 * RADIUS / K * (1.0 + 1e-6) + ROUNDING

wild = st.one_of(
    st.floats(-10, 10), st.sampled_from([0.0, np.nan, np.inf, -np.inf, 1e-30, 3e38, -3e38, 1e19, RADIUS, -RADIUS])
)
vector = st.lists(wild, min_size=CODES, max_size=CODES).map(np.array)


# --- what one patient can move ---------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), vector, vector, st.integers(0, 2**16))
def test_a_patients_code_moves_one_mean_by_two_radii_over_k_at_most(normal, ill, before, after, seed):
    labels = np.repeat([0, 1, 0], [normal, ill, 1])
    codes = np.random.default_rng(seed).normal(size=(len(labels), CODES)) * 3.0
    places = formal.places_of(labels, np.array([3, 2]), K, SecretStream(TestNoise(seed)))
    one, two = codes.copy(), codes.copy()
    one[-1], two[-1] = before, after
    moved = np.linalg.norm(means_of(two, places) - means_of(one, places), axis=1)
    assert moved.max() <= LIMIT
    assert (moved > 0).sum() <= 1, "other groups keep every bit"
    if len(labels) - 1 not in places:
        assert not moved.any(), "who has no place changes nothing"


def test_the_limit_is_reached():
    places = np.full((5, K), -1)
    places[0, 0] = 0
    centre = centres_of_groups()[0].numpy()
    far = np.zeros((1, CODES))
    far[0, 0] = 1e6
    moved = means_of(centre + far, places) - means_of(centre - far, places)
    assert np.linalg.norm(moved) == pytest.approx(2.0 * RADIUS / K, rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(vector, vector, st.integers(0, 2**16), st.integers(0, 3 * K - 1), st.integers(0, 2 * K - 1))
def test_another_label_moves_two_means_root_two_times_as_far_together(before, after, seed, here, there):
    # the same draw with and without the patient, as the next test says it is: there is nobody where the patient is not
    codes = np.random.default_rng(seed).normal(size=(5 * K + 1, CODES)) * 3.0
    places = np.arange(5 * K)
    places[[here, 3 * K + there]] = -1
    one, two = places.copy(), places.copy()
    one[here] = two[3 * K + there] = patient = 5 * K
    first, second = codes.copy(), codes.copy()
    first[patient], second[patient] = before, after
    moved = means_of(second, two.reshape(5, K)) - means_of(first, one.reshape(5, K))
    assert np.linalg.norm(moved) <= np.sqrt(2.0) * LIMIT
    assert (np.linalg.norm(moved, axis=1) > 0).sum() <= 2


@pytest.mark.parametrize("newcomer", ["first", "last"])
@pytest.mark.parametrize("patients", [0, 1, 3, 4, 6])
def test_the_draw_with_a_patient_more_is_the_draw_without_in_which_one_place_changed_hands(patients, newcomer):
    """The premise of `KAverageGaussian`, over many draws of four places (two groups of two)."""
    secret, draws = SecretStream(TestNoise(1)), 4000
    # the others keep their numbers; the newcomer's comes before or after theirs
    numbers = [99, *range(patients)] if newcomer == "first" else [*range(patients), 99]

    def law(names: list[int]) -> Counter[tuple[int, ...]]:
        labels, counts, named = np.zeros(len(names), dtype=np.int64), np.array([2]), np.array([*names, -1])
        return Counter(tuple(named[formal.places_of(labels, counts, 2, secret)].ravel().tolist()) for _ in range(draws))

    without, with_one = law([*range(patients)]), Counter()
    generator = np.random.default_rng(0)
    for places, times in law(numbers).items():
        idle = sorted(set(range(patients)) - set(places)) or [-1]
        for _ in range(times):
            # the newcomer's place goes to one who has none, or to nobody
            taker = int(generator.choice(idle))
            with_one[tuple(taker if one == 99 else one for one in places)] += 1
    spread = sum(abs(without[key] - with_one[key]) for key in without | with_one) / (2 * draws)
    outcomes = len(without | with_one)
    assert spread < 2.0 * np.sqrt(outcomes / draws / np.pi), "two samples of one law"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 1), max_size=40), st.integers(0, 4), st.integers(0, 4), st.integers(2, 6))
def test_everybody_has_one_place_at_most_under_the_own_label(labels, first, second, k):
    labels, counts = np.array(labels, dtype=np.int64), np.array([first, second])
    places = formal.places_of(labels, counts, k, SecretStream(TestNoise(0)))
    assert places.shape == (first + second, k)
    held = places[places >= 0]
    assert len(np.unique(held)) == len(held)
    for label, group in enumerate((places[:first], places[first:])):
        own = group[group >= 0]
        assert (labels[own] == label).all()
        assert len(own) == min(int((labels == label).sum()), group.size), "as many as there are, or as fit"


# --- what never shows ------------------------------------------------------------------------------------------------


def test_any_cohort_gives_the_same_number_of_images_and_labels():
    found = {}
    for counts in ((0, 0), (1, 0), (0, 50), (30, 2)):
        made = anonymise(job_of(cohort_of(*counts)))
        found[counts] = (made.images.shape, tuple(sorted(made.labels.tolist())), made.patients, made.spends)
    assert set(found.values()) == {((5, 16, 16), (0, 0, 0, 1, 1), K, (KAverageGaussian(1.0, K),))}


def test_its_word_is_formal_and_its_noise_the_meters():
    cohort = cohort_of(20, 20)
    one, again, other = (anonymise(job_of(cohort, seed=seed)) for seed in (0, 0, 1))
    assert one.guarantee == "formal"
    assert np.array_equal(one.images, again.images)
    assert not np.array_equal(one.images, other.images)
    recorder = mock.Mock(wraps=NoiseRecorder(NoNoise(), "entry"), executed=())
    formal.dp_k_average(dataclasses.replace(job_of(cohort), recorder=recorder))
    ((members, radius, multiplier),) = (call.args for call in recorder.k_average.call_args_list)
    assert (members.shape, radius, multiplier) == ((5, K, CODES), RADIUS, 1.0)
    assert np.isfinite(members).all() and (np.abs(members).sum(axis=2) > 0).all()


def test_the_images_are_of_the_noised_means():
    cohort, codes = cohort_of(20, 20), []
    drawn = formal.drawn_images

    def spy(job, space, w, components):
        codes.append(w)
        return drawn(job, space, w, components)

    job = job_of(cohort, noise=NoNoise(), radius=1e3, noise_multiplier=1e-6)
    with mock.patch.object(formal, "drawn_images", spy):
        formal.dp_k_average(job)
    labels = patient_labels(cohort, 2)
    patients = encode_patients(inverter_of(job), cohort, labels, torch.from_numpy(labels))
    places = formal.places_of(patients.labels, np.array([3, 2]), K, SecretStream(TestNoise(0)))
    centres = centres_of_groups()
    means = patients.codes[torch.from_numpy(places)].mean(dim=1) - centres
    # next to no noise and no clipping: a mean of k is brought back to the spread of one
    assert torch.allclose(codes[0] - centres, means * np.sqrt(K), atol=0.02)


@pytest.mark.parametrize(("radius", "sigma"), [(100.0, 0.01), (4.0, 1.0), (1.0, 0.3)])
def test_rescaled_means_of_the_priors_codes_spread_as_the_codes_do(radius, sigma):
    job = job_of(cohort_of(1, 1), radius=radius, noise_multiplier=sigma)
    inverter, components = inverter_of(job), torch.tensor([0, 1])
    centres = inverter.space.centre(components)
    scale = formal.rescaling(job, inverter, components, centres)
    assert scale.shape == (2, CODES)
    with torch.no_grad():
        y = torch.ones(2000 * K, dtype=torch.int64)
        codes = inverter.space.mapping(inverter.space.draw_z(y, TorchDraws(torch.Generator().manual_seed(7))), y)
    offsets = (codes - centres[1]).double().numpy()
    noised = NoiseRecorder(TestNoise(3), "entry").k_average(offsets.reshape(2000, K, CODES), radius, sigma) * scale[1]
    assert noised.std(axis=0) == pytest.approx(offsets.std(axis=0), rel=0.15)


# --- k-same ----------------------------------------------------------------------------------------------------------


def test_k_same_shows_the_mean_code_of_each_group():
    job, seen = job_of(cohort_of(14, 9), "k-same", images=4), []
    module = importlib.import_module("sfumato_client.anonymise.k_same")

    def spy(space, plain, made, averages, component, *_):
        assert torch.equal(plain, made), "k-same adds nothing to the mean"
        seen.append((made[0], int(component)))
        return np.zeros((16, 16), np.uint8)

    with mock.patch.object(module, "draw_restrained", spy):
        found = module.k_same(job)
    patients = patients_of(job)
    groups = groups_of(job)
    means = {group.label: [] for group in groups}
    for group in groups:
        means[group.label].append(patients.codes[group.members].mean(dim=0))
    codes, components = torch.stack([code for code, _ in seen]), [component for _, component in seen]
    assert components == found.labels.tolist()
    for code, label in zip(codes, found.labels.tolist(), strict=True):
        assert min(float((code - mean).abs().max()) for mean in means[label]) < 1e-6
    assert len(np.unique(codes.numpy(), axis=0)) == 4, "no group twice"


def test_k_same_says_how_many_patients_are_behind_an_image_and_what_it_guarantee_level():
    found = anonymise(job_of(cohort_of(14, 9), "k-same", images=4))
    assert (found.guarantee, found.patients, found.spends) == ("syntactic", K, ())
    assert anonymise(job_of(cohort_of(6, 7), "k-same", images=2)).patients == 6, "remainders are merged"
    assert anonymise(job_of(cohort_of(14, 9), "k-same", images=4, private=False)).guarantee == "heuristic"


def test_k_same_refuses_what_the_cohort_cannot_give():
    with pytest.raises(DataError, match="too few patients") as error:
        anonymise(job_of(cohort_of(11, 7), "k-same"))
    assert set(re.findall(r"\d+", str(error.value))) == {str(K)}
