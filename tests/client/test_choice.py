"""The choice stage at a site: one patient's part in the histograms, what leaves, and what it is charged as."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.plans import dp_sgd
from tests.support.plans import small_plan

from sfumato_client.dataset.cohort import Cohort
from sfumato_client.site.inbound import models_of, requested_items
from sfumato_client.training import StageJob, train
from sfumato_client.training.utility import score_histogram
from sfumato_common.accounting.events import GaussianRelease, same_mechanisms
from sfumato_common.errors import VerificationError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.exchanges.choice import HISTOGRAMS
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.metrics.choice import classifiers_schema
from sfumato_common.metrics.utility import Classifier
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
DP = dp_sgd()
VALUES = small_plan(
    {"kind": "flow", "levels": 1, "steps_per_level": 1, "hidden": 8, **DP},
    {"kind": "choice", "noise_multiplier": 0.7, "bins": 8, "images": 60},
    released="best",
    sites={"alder": 100},
    noise=1.0,
)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return parse(VALUES, Plan, "test")


def classifiers(plan: Plan) -> dict[str, np.ndarray]:
    """Classifiers whose scores depend on the image, and differ between the candidates."""
    arrays = {}
    for place, kind in enumerate(plan.candidates):
        torch.manual_seed(place)
        model = Classifier(1, 2)
        model.head.weight.data *= 20.0
        arrays |= {f"{kind}:{name}": value.numpy() for name, value in model.state_dict().items()}
    return arrays


def cohort_without(left_out: int | None, patients: int = 30) -> Cohort:
    rng = np.random.default_rng(0)
    patient_index = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    images = rng.integers(0, 256, (len(patient_index), 16, 16)).astype(np.uint8)
    labels = rng.integers(0, 2, len(patient_index))
    kept = np.ones(len(patient_index), bool) if left_out is None else patient_index != left_out
    _, renumbered = np.unique(patient_index[kept], return_inverse=True)
    return Cohort(images[kept], labels[kept], renumbered.astype(np.int64))


class Recorder(NoiseRecorder):
    """A recorder that keeps what was to be noised."""

    def gaussian(self, value, sensitivity, noise_multiplier):
        self.value, self.sensitivity = np.array(value), sensitivity
        return super().gaussian(value, sensitivity, noise_multiplier)


def run(plan: Plan, cohort: Cohort):
    noise = TestNoise(1)
    recorder = Recorder(noise, "binding")
    job = StageJob(plan, "alder", plan.stage("choice"), 1, classifiers(plan), cohort, noise, recorder)
    return train(job), recorder


def test_a_patient_moves_one_count_a_candidate_whatever_its_images(plan):
    _, whole = run(plan, cohort_without(None))
    for patient in (0, 7, 29):
        _, less = run(plan, cohort_without(patient))
        change = whole.value - less.value
        assert np.linalg.norm(change) == pytest.approx(whole.sensitivity)
        assert (np.abs(change).sum(axis=(1, 2)) == 1.0).all()
    assert whole.sensitivity == math.sqrt(len(plan.candidates))
    assert whole.value.sum() == 30 * len(plan.candidates)


def test_nobody_and_one_patient_are_answered_in_the_same_form(plan):
    """A site that cannot answer for want of a patient tells, uncharged, that the patient is gone."""
    for patients in (0, 1):
        noised, recorder = run(plan, cohort_without(None, patients))
        assert noised[HISTOGRAMS].shape == (2, 2, 8) and np.isfinite(noised[HISTOGRAMS]).all()
        assert recorder.value.sum() == patients * len(plan.candidates)
    figured = parse({**VALUES, "utility": {"noise_multiplier": 1.0}}, Plan, "test")
    classifier = {name: value.numpy() for name, value in Classifier(1, 2).state_dict().items()}
    for patients in (0, 1):
        recorder = Recorder(TestNoise(1), "binding")
        found = score_histogram(figured, classifier, cohort_without(None, patients), recorder)["histogram"]
        assert found.shape == (2, 10) and np.isfinite(found).all() and recorder.value.sum() == patients


def test_candidates_are_scored_by_their_own_classifiers(plan):
    _, recorder = run(plan, cohort_without(None))
    assert (recorder.value[0] != recorder.value[1]).any()


def test_what_leaves_is_the_schemas_and_was_charged_as_one_release(plan):
    noised, recorder = run(plan, cohort_without(None))
    schema = EXCHANGES["choice"].returned(plan)
    assert noised.keys() == schema.keys() == {HISTOGRAMS}
    assert all(schema[name].matches(value) for name, value in noised.items())
    event = plan.stage("choice").event
    assert event == GaussianRelease(0.7)
    assert same_mechanisms([event], recorder.executed)
    residue = noised[HISTOGRAMS] - recorder.value
    assert residue.std() == pytest.approx(0.7 * math.sqrt(2), rel=0.5)


def test_a_cohort_without_patients_is_answered_with_noise(plan):
    empty = Cohort(np.zeros((0, 16, 16), np.uint8), np.zeros(0, np.int64), np.zeros(0, np.int64))
    noised, _ = run(plan, empty)
    assert np.isfinite(noised[HISTOGRAMS]).all()


def arrays_of(plan: Plan, *kinds: str) -> dict[str, np.ndarray]:
    return {
        f"{kind}:{name}": np.zeros(spec.shape, spec.dtype)
        for kind in kinds
        for name, spec in EXCHANGES[kind].released(plan).items()
    }


@pytest.mark.parametrize("kinds", [("spectral",), ("spectral", "flow")])
def test_the_request_says_what_best_means(plan, kinds):
    items = requested_items(plan, "alder", kinds[-1])
    assert [(item.model, item.images) for item in items] == [(kinds[-1], 4)]
    assert set(models_of(arrays_of(plan, *kinds), plan, items)) == set(kinds)


def test_best_is_one_model_of_the_plan_beside_the_spectral_one(plan):
    for arrays in ({}, arrays_of(plan, "flow"), {"choice:winner": np.zeros(1, np.float32)}):
        with pytest.raises(VerificationError, match="other models"):
            models_of(arrays, plan, requested_items(plan, "alder", "flow"))
    for choice in ("", "choice", "best", "none"):
        with pytest.raises(VerificationError, match="does not leave"):
            requested_items(plan, "alder", choice)
    named = parse({**plan.model_dump(mode="json"), "release": [{"model": "flow", "images": 4}]}, Plan, "plan")
    with pytest.raises(VerificationError, match="does not leave"):
        requested_items(named, "alder", "flow")


def test_the_classifiers_that_come_in_are_those_of_the_plan(plan):
    assert {name: value.shape for name, value in classifiers(plan).items()} == {
        name: spec.shape for name, spec in classifiers_schema(plan).items()
    }
