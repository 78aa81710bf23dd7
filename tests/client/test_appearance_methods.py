"""Methods on averages in the appearance space: each makes its images, holds its patients, and says what it costs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from sfumato_client.anonymise import Job, Release, anonymise
from sfumato_client.anonymise import influence as held
from sfumato_client.anonymise.groups import groups_of
from sfumato_client.anonymise.inversion import code_of_patient, inverter_of, space_of
from sfumato_client.anonymise.patients import patients_of
from sfumato_client.dataset import Cohort
from sfumato_common.generators import GENERATORS
from sfumato_common.generators.appearance.feature_map import AppearanceLayout
from sfumato_common.generators.appearance.features import features_of
from sfumato_common.generators.appearance.fit import fit_appearance
from sfumato_common.generators.spectral.release import noised_moments
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import Streams
from sfumato_common.phantom import arrays as phantom_arrays
from sfumato_common.strict import parse
from sfumato_common.study.costs import release_events
from sfumato_common.study.plan import Plan

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
SIZE, K, PATIENTS = 32, 4, 48
TERMS = {
    "k-same": {"k": K, "distance": "image"},
    "k-salsa": {"k": K, "steps": 4, "embedding_steps": 4},
    "linear-walk": {"k": K, "points": 2},
    "plan-walk": {"k": K, "points": 2, "steps": 4, "classifier_steps": 4},
    "dp-k-average": {"k": K, "radius": 8.0, "noise_multiplier": 1.0},
}
LEVELS = dict.fromkeys(TERMS, "syntactic") | {"plan-walk": "heuristic", "dp-k-average": "formal"}


def plan_of(method: str, **terms: object) -> Plan:
    value = {
        "study": "methods",
        "image": {"size": SIZE},
        "labels": ["normal", "opacity"],
        "sites": {"alder": {"nominal_patients": 60}, "birch": {"nominal_patients": 60}},
        "privacy": {"epsilon": 1000.0, "delta": 1e-5},
        "stages": [{"kind": "appearance", "noise_multiplier": 0.05, "phantoms": 8}],
        "release": [{"method": method, "model": "appearance", "images": 5, **TERMS[method], **terms}],
        "federation": {"quorum": 1},
    }
    return parse(value, Plan, "test")


@cache
def cohort_of(seed: int = 0) -> Cohort:
    return Cohort(*phantom_arrays(seed, PATIENTS, SIZE))


@cache
def released() -> dict[str, np.ndarray]:
    plan = plan_of("k-same")
    layout = AppearanceLayout.of(plan)
    images, labels, patient_index = cohort_of(1).everything()
    weights = 1.0 / np.bincount(patient_index)[patient_index]
    sums = noised_moments(layout, 0.05, features_of(layout.map, images), labels, weights, lambda part, s, m: part)
    found = {f"appearance/{name}": value for name, value in fit_appearance(plan, {"alder": sums}).items()}
    GENERATORS["appearance"].check_fixed(plan, found)
    return found


def job_of(method: str, seed: int = 0, cohort: Cohort | None = None, **terms: object) -> Job:
    plan, noise = plan_of(method, **terms), TestNoise(seed)
    release = Release(plan, "alder", {"appearance": released()}, cohort_of() if cohort is None else cohort)
    return Job(release, plan.release[0], Streams.of(noise), NoiseRecorder(noise, "entry"))


@pytest.mark.parametrize("method", sorted(TERMS))
def test_every_method_on_averages_works_in_the_appearance_space(method):
    found, again, other = (anonymise(job_of(method, seed)) for seed in (0, 0, 1))
    assert (found.images.shape, found.images.dtype) == ((5, SIZE, SIZE), np.uint8)
    assert (found.method, found.model, found.guarantee) == (method, "appearance", LEVELS[method])
    assert found.patients >= K and set(found.labels.tolist()) <= {0, 1}
    assert np.array_equal(found.images, again.images) and not np.array_equal(found.images, other.images)
    assert len(np.unique(found.images.reshape(5, -1), axis=0)) == 5
    assert found.images.std() > 20, "they show something"


def test_what_dp_k_average_spends_is_what_the_plan_charges():
    job = job_of("dp-k-average")
    assert list(anonymise(job).spends) == release_events(job.plan, job.item)


def test_centroids_are_sharp_where_averages_of_pixels_are_not():
    job = job_of("k-same", images=8, distance="random")
    found = anonymise(job)
    members = [group.members for group in groups_of(job)]
    averages = np.concatenate([held.averages_without(job.cohort, group)[:1, 0] for group in members])

    def gradients(pixels: np.ndarray) -> float:
        return float(np.square(np.diff(pixels, axis=1)).mean() + np.square(np.diff(pixels, axis=2)).mean())

    real = job.cohort.everything()[0] / 127.5 - 1.0
    assert gradients(averages) < 0.6 * gradients(real) < gradients(found.images / 127.5 - 1.0) < 1.5 * gradients(real)


def test_nobody_moves_an_image_further_than_an_average_allows_and_none_is_refused(monkeypatch):
    checked = []
    restrain = held.restrain

    def watch(plain, made, allowed, bits):
        image = restrain(plain, made, allowed, bits)
        still = held.to_unit_range(held.to_bytes(plain, bits))
        assert bool((held.by_ring(still[1:] - still[:1]) <= 0.55 * allowed + 2 / 255).all()), "half of what is allowed"
        checked.append(image)
        return image

    monkeypatch.setattr(held, "restrain", watch)
    for method in ("k-same", "linear-walk", "k-salsa"):
        anonymise(job_of(method))
    assert len(checked) == 15


def test_a_code_is_of_its_own_patient_and_of_no_coordinators_model():
    job = job_of("dp-k-average")
    images, labels, patient_index = cohort_of().everything()
    fewer = patient_index != 0
    without = Cohort(images[fewer], labels[fewer], patient_index[fewer] - 1)
    crafted = {name: value + np.float32(0.5) for name, value in released().items()}
    other = replace(job, release=replace(job.release, models={"appearance": crafted}, shared={}))
    for patient in (1, 5, 17):
        one = code_of_patient(inverter_of(job), cohort_of(), patient, torch.tensor(0))
        assert torch.equal(one, code_of_patient(inverter_of(job), without, patient - 1, torch.tensor(1)))
        assert torch.equal(one, code_of_patient(inverter_of(other), cohort_of(), patient, torch.tensor(0)))


def test_a_mean_code_decodes_to_mean_exposure_pose_and_energies():
    """What pixels cannot give: shape and appearance averaged apart."""
    job = job_of("k-same")
    space, patients = space_of(job), patients_of(job)
    mean = patients.codes[:6].mean(dim=0, keepdim=True)
    y = torch.zeros(1, dtype=torch.int64)
    noise = space.draw_noise(y, job.streams.published)
    again = space.encode(space.decode(mean, y, noise), y)
    apart = (space.encode(torch.from_numpy(held.to_unit_range(patients.images[:6])), y) - mean).square().mean(dim=0)
    assert (again - mean).square().mean() < 0.5 * apart.mean(), "nearer to it than members are"
