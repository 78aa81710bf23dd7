"""The contract that every anonymisation method of the table keeps, whatever it is."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from support.plans import dp_sgd

from sfumato_client.anonymise import ANONYMISERS, CandidateSet, Job, Release, anonymise
from sfumato_client.dataset.cohort import Cohort
from sfumato_common.accounting.events import Declared, LocalLaplace, Unprotected
from sfumato_common.errors import ConfigError, DataError, PolicyRefusal, ReleaseRefused
from sfumato_common.generators.spectral.fit import fit_release
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.spectral.release import noised_release
from sfumato_common.generators.starts import initial_model
from sfumato_common.generators.weights import to_arrays
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import BareRecorder, NoiseRecorder
from sfumato_common.mechanisms.streams import Streams
from sfumato_common.strict import parse
from sfumato_common.study.costs import NOISE_ALONE, release_events
from sfumato_common.study.forecast import forecast
from sfumato_common.study.plan import Plan
from sfumato_common.study.words import part_of

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
SITE, PATIENTS, SIZE, K = "alder", 40, 16, 3
DP = dp_sgd()
QUICK = {"encoder_steps": 4, "refinement_steps": 2}
ITEMS = {
    "dp-sampling": {"model": "flow"},
    "k-same": {**QUICK, "k": K},
    "k-salsa": {**QUICK, "k": K, "steps": 3, "embedding_steps": 3},
    "linear-walk": {**QUICK, "k": K, "points": 2},
    "plan-walk": {**QUICK, "k": K, "points": 2, "steps": 3, "classifier_steps": 3},
    "dp-k-average": {**QUICK, "k": K, "radius": 4.0, "noise_multiplier": 1.0},
    "dp-glow": {"radius": 40.0, "epsilon": 4.0},
    "cadp": {"radius": 10.0, "mechanism": "gaussian", "clip": "l2", "noise_multiplier": 2.0, "label_epsilon": 1.0},
}
FORMAL = {"dp-sampling", "dp-k-average", "dp-glow", "cadp"}
NOISED = ["dp-glow", "cadp"]
ON_GROUPS = sorted(set(ITEMS) - FORMAL)


def plan_of(method: str, *, images: int = 6, private: bool = True, **terms: object) -> Plan:
    noise = {} if private else {"noise_multiplier": 0.001}
    value = {
        "study": "contract",
        "image": {"size": SIZE, "channels": 1},
        "labels": ["normal", "opacity"],
        "sites": {SITE: {"nominal_patients": 40}, "birch": {"nominal_patients": 40}},
        "private": private,
        "privacy": {"epsilon": 50.0, "delta": 1e-5},
        "stages": [
            {"kind": "spectral", "bandwidth": 4, "clip_radius": 4.0, "spread_radius": 3.0, "noise_multiplier": 0.001},
            {"kind": "gan", "width": 8, "generator_steps": 2, "fakes": 4, **DP, **noise},
            {"kind": "flow", "levels": 2, "steps_per_level": 2, "hidden": 8, **DP, **noise},
        ],
        "release": [{"method": method, "images": images, **ITEMS[method], **terms}],
        "federation": {"quorum": 1},
    }
    return parse(value, Plan, "test")


def cohort_of(patients: int = PATIENTS, seed: int = 0, label: int | None = None) -> Cohort:
    """Smooth images, one or two a patient, brighter where the label is 1."""
    rng = np.random.default_rng(seed)
    patient_index = np.sort(np.concatenate([np.arange(patients), rng.integers(0, max(1, patients), patients // 2)]))
    labels = (rng.integers(0, 2, patients) if label is None else np.full(patients, label))[patient_index]
    down, across = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    phase = rng.uniform(0, 6, (len(patient_index), 2, 1, 1))
    waves = np.sin(5 * down + phase[:, 0]) + np.cos(4 * across + phase[:, 1])
    images = 110 + 30 * waves + 40 * labels[:, None, None] + rng.normal(0, 3, waves.shape)
    return Cohort(np.clip(images, 0, 255).astype(np.uint8), labels, patient_index)


@cache
def released(private: bool = True) -> dict[str, dict[str, np.ndarray]]:
    """Models as a study would release them: a fitted spectral part, and the public start of the others."""
    plan = plan_of("dp-sampling", private=private)
    images, labels, _ = cohort_of(200, seed=1).everything()
    release = noised_release(Layout.of(plan), 0.001, images, labels, np.ones(len(images)), lambda part, s, m: part)
    spectral = {f"spectral/{name}": value for name, value in fit_release(plan, {SITE: release}).items()}
    models = {kind: to_arrays(kind, initial_model(kind, plan)) for kind in ("generator", "flow")}
    return {"spectral": spectral, "gan": {**spectral, **models["generator"]}, "flow": {**spectral, **models["flow"]}}


def job_of(plan: Plan, cohort: Cohort, seed: int = 0) -> Job:
    noise = TestNoise(seed)
    private = plan.private
    return Job(
        Release(plan, SITE, released(private), cohort),
        plan.release[0],
        Streams.of(noise),
        NoiseRecorder(noise, "entry") if private else BareRecorder(plan.release[0].method, "entry", noise),
    )


@cache
def made(method: str, seed: int = 0) -> CandidateSet:
    return anonymise(job_of(plan_of(method), cohort_of(), seed))


@pytest.mark.parametrize(
    ("method", "terms"),
    [*((method, {}) for method in sorted(FORMAL - {"cadp"})), ("cadp", {"decode": "resampled"})],
)
def test_no_label_of_a_formal_set_tells_a_label_of_the_cohort(method, terms):
    """The audit's attack: one patient of a rare label made an image of that label likely, and no charge covered it."""
    plan = plan_of(method, **terms)
    found = [anonymise(job_of(plan, cohort_of(label=label))).labels for label in (0, 1)]
    assert np.array_equal(*found), "what a label shows was drawn from what was released before"
    rare = cohort_of(label=0)
    rare.labels[rare.patient_index == 3] = 1
    assert np.array_equal(anonymise(job_of(plan, rare)).labels, found[0])


@pytest.mark.parametrize("method", ["dp-glow", "cadp"])
def test_labels_of_records_are_seen_where_a_plan_takes_them_for_public_and_the_set_says_so(method):
    plan = plan_of(method, label="public", **({"label_epsilon": None} if method == "cadp" else {}))
    found = [anonymise(job_of(plan, cohort_of(label=label))) for label in (0, 1)]
    assert [set(some.labels.tolist()) for some in found] == [{0}, {1}]
    assert {some.guarantee for some in found} == {"formal, labels public"}


@pytest.fixture(params=sorted(ANONYMISERS))
def method(request) -> str:
    return request.param


def in_release(job: Job, **terms) -> Job:
    """The job in a release of its own that differs in `terms`, and shares nothing with the first."""
    return replace(job, release=replace(job.release, **{"shared": {}, **terms}))


def test_every_method_has_a_case_here():
    assert set(ITEMS) == set(ANONYMISERS)


def test_it_gives_exactly_what_was_asked_for(method):
    found, plan = made(method), plan_of(method)
    assert (found.method, found.model) == (method, plan.release[0].model)
    assert (found.images.shape, found.images.dtype) == ((6, SIZE, SIZE), np.uint8)
    assert set(found.labels.tolist()) <= {0, 1}
    assert len(np.unique(found.images.reshape(6, -1), axis=0)) == 6, "one image, several times"


def test_its_word_is_what_its_charges_carry(method):
    found, events = made(method), release_events(plan_of(method), plan_of(method).release[0])
    assert list(found.spends) == [event for event in events if not isinstance(event, Declared)]
    assert found.guarantee == ("formal" if method in FORMAL else "heuristic" if method == "plan-walk" else "syntactic")
    if method not in FORMAL:
        (declared,) = events
        assert found.guarantee in declared.what
        assert declared.bits >= found.images.nbytes * 8, "every bit that no epsilon covers is declared"


def test_it_says_how_many_patients_stand_behind_an_image(method):
    least = 0 if method == "dp-sampling" else K if method in {"k-same", "k-salsa", "dp-k-average"} else 1
    if method in {"linear-walk", "plan-walk"}:
        least = 2 * K
    assert made(method).patients >= least
    assert (made(method).patients == 0) == (method == "dp-sampling")


def test_no_records_bytes_are_in_an_output(method):
    images = cohort_of().everything()[0].reshape(-1, SIZE * SIZE).astype(float)
    for output in made(method).images.reshape(-1, SIZE * SIZE).astype(float):
        assert np.abs(images - output).max(axis=1).min() > 8, "an output is a record, give or take a few grey levels"


def test_the_same_seed_gives_the_same_images_and_another_one_others(method):
    again = anonymise(job_of(plan_of(method), cohort_of()))
    assert np.array_equal(again.images, made(method).images)
    assert np.array_equal(again.labels, made(method).labels)
    assert not np.array_equal(made(method, seed=1).images, made(method).images)


def test_a_cohort_that_is_too_small_is_refused_or_cannot_be_told(method):
    few = cohort_of(4, label=0)
    if method in FORMAL:
        found = anonymise(job_of(plan_of(method), few))
        assert found.images.shape == (6, SIZE, SIZE)
        return
    with pytest.raises(DataError) as refused:
        anonymise(job_of(plan_of(method), few))
    assert not re.search(r"\d", str(refused.value).replace(str(K), "")), "an exact count"


@pytest.mark.parametrize("method", sorted(FORMAL - {"dp-sampling"}))
def test_formal_methods_serve_an_empty_cohort_too(method):
    nobody = Cohort(np.zeros((0, SIZE, SIZE), np.uint8), np.zeros(0, np.int64), np.zeros(0, np.int64))
    found = anonymise(job_of(plan_of(method), nobody))
    assert found.images.shape == (6, SIZE, SIZE)


@pytest.mark.parametrize("method", [*ON_GROUPS, *NOISED])
def test_without_a_private_model_a_word_is_heuristic(method):
    assert anonymise(job_of(plan_of(method, private=False), cohort_of())).guarantee == "heuristic"


def test_without_a_private_model_no_plan_asks_for_a_method_that_is_formal_or_nothing():
    with pytest.raises(ConfigError, match="formal"):
        plan_of("dp-k-average", private=False)


@pytest.mark.parametrize("method", NOISED)
def test_noised_latents_without_a_private_model_are_charged_without_end_and_are_noised_all_the_same(method):
    def charged(total: float) -> tuple[Plan, CandidateSet]:
        terms = {"mechanism": "laplace", "clip": "l1", "noise_multiplier": None, "radius": 200.0, "epsilon": total}
        plan = plan_of(method, private=False, **terms)
        return plan, anonymise(job_of(plan, cohort_of()))

    plan, found = charged(1e6)
    assert release_events(plan, plan.release[0]) == list(found.spends) == [Unprotected(method)]
    assert {part_of(level) for level in plan.guarantee_levels.values()} == {"declared"}
    assert not np.array_equal(found.images, charged(10.0)[1].images), "the noise hangs on epsilon"
    (said,) = forecast(plan, 1e-5).noised
    label = plan.release[0].label_epsilon if method == "cadp" else 0.0
    assert said.startswith(f"eps_total {1e6 + label:.6g} at delta 0: ") and said.endswith(NOISE_ALONE)
    assert forecast(plan_of(method), 1e-5).noised == ()
    with pytest.raises(ReleaseRefused, match="formal sets only"):
        replace(found, spends=(LocalLaplace(1.0),))


@pytest.mark.parametrize("method", ON_GROUPS)
def test_patients_are_grouped_once(method, tmp_path):
    def run(cohort: Cohort, regroup: bool = False, **terms: object) -> CandidateSet:
        job = job_of(plan_of(method, **terms), cohort)
        return anonymise(in_release(job, grouping_file=tmp_path / "groups.json", regroup=regroup))

    first = run(cohort_of())
    assert np.array_equal(run(cohort_of()).images, first.images), "the same cohort has the same groups"
    for changed in (
        lambda **more: run(cohort_of(PATIENTS + 1), **more),
        lambda **more: run(cohort_of(), k=K + 1, **more),
    ):
        with pytest.raises(PolicyRefusal):
            changed()
        assert len(changed(regroup=True).images) == 6


@pytest.mark.parametrize("method", sorted(set(ITEMS) - {"dp-sampling"}))
def test_what_a_record_gives_does_not_hang_on_how_torch_was_seeded(method):
    torch.manual_seed(7)
    again = anonymise(job_of(plan_of(method), cohort_of()))
    assert np.array_equal(again.images, made(method).images)
