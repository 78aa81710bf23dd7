"""Embedding stage at a site: what leaves fits the schema and is charged; what comes in is held against the plan."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato_client.dataset.cohort import Cohort
from sfumato_client.site.inbound import Seen
from sfumato_client.training import StageJob, train
from sfumato_common.accounting.events import same_mechanisms
from sfumato_common.errors import VerificationError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators.components import component_count
from sfumato_common.generators.embedding.features import COUNT_WEIGHT, SENSITIVITY
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.starts import initial_model, max_displacement
from sfumato_common.generators.weights import to_arrays
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan

PATIENTS = 12


def plan_of(sigma: float = 1.3, channels: int = 1, by_site: bool = False) -> Plan:
    spectral = {"kind": "spectral", "bandwidth": 4, "clip_radius": 3.0, "noise_multiplier": 1.0, "by_site": by_site}
    value = {
        "study": "small",
        "image": {"size": 16, "channels": channels},
        "labels": ["normal", "opacity"],
        "sites": {"alder": {"nominal_patients": 30}, "birch": {"nominal_patients": 30}},
        "privacy": {"epsilon": 50.0, "delta": 1e-5},
        "stages": [spectral, {"kind": "embedding", "noise_multiplier": sigma, "generator_steps": 5, "width": 8}],
        "release": [{"model": "embedding", "images": 4}],
        "federation": {"quorum": 1},
    }
    return parse(value, Plan, "test")


def spectral_arrays(plan: Plan) -> dict[str, np.ndarray]:
    layout, count = Layout.of(plan), component_count(plan)
    d = layout.features
    arrays = {"shares": np.full(count, 1.0 / count), "mean": np.zeros((count, d)), "tail": np.ones(count)}
    arrays.update(factor=np.stack([np.eye(d) * 0.2] * count), signal=np.stack([np.eye(d)] * count))
    return {f"spectral/{name}": value.astype(np.float32) for name, value in arrays.items()}


def cohort_of(plan: Plan, label: int | None = None) -> Cohort:
    rng = np.random.default_rng(0)
    shape = (2 * PATIENTS, 16, 16) if plan.image.channels == 1 else (2 * PATIENTS, 16, 16, 3)
    labels = rng.integers(0, 2, 2 * PATIENTS) if label is None else np.full(2 * PATIENTS, label)
    return Cohort(rng.integers(0, 256, shape).astype(np.uint8), labels, np.repeat(np.arange(PATIENTS), 2))


def job_of(plan: Plan, cohort: Cohort) -> StageJob:
    noise = SecureNoise()
    return StageJob(
        plan, "birch", plan.stage("embedding"), 1, spectral_arrays(plan), cohort, noise, NoiseRecorder(noise, "entry")
    )


@pytest.mark.parametrize(("channels", "by_site"), [(1, False), (3, True)])
def test_what_leaves_is_the_schema_and_costs_what_the_ledger_is_charged(channels, by_site):
    plan = plan_of(channels=channels, by_site=by_site)
    assert EXCHANGES["embedding"].sent(plan).keys() == spectral_arrays(plan).keys()
    job = job_of(plan, cohort_of(plan))
    noised = train(job)
    schema = EXCHANGES["embedding"].returned(plan)
    assert noised.keys() == schema.keys()
    assert all(schema[name].matches(value) and schema[name].sound(value) for name, value in noised.items())
    assert same_mechanisms([plan.stage("embedding").event], job.recorder.executed)


def test_a_patient_counts_once_however_many_images_there_are_and_noise_has_the_plans_size():
    nearly_none = plan_of(sigma=1e-4)
    sums = train(job_of(nearly_none, cohort_of(nearly_none, label=1)))["sums"]
    assert sums[1, 0] / COUNT_WEIGHT == pytest.approx(PATIENTS, abs=0.02)
    plan = plan_of(sigma=3.0)
    twice = [train(job_of(plan, cohort_of(plan)))["sums"] for _ in range(2)]
    assert np.std(twice[1] - twice[0]) == pytest.approx(3.0 * SENSITIVITY * np.sqrt(2.0), rel=0.15)


def test_a_site_takes_a_generator_that_the_plans_steps_can_reach_and_no_other(tmp_path):
    plan = plan_of()
    seen, spectral = Seen(tmp_path, plan), spectral_arrays(plan)
    stage = plan.stage("embedding")
    seen.check_round(stage, 1, spectral)
    seen.keep_round(plan.stage("embedding"), 1, spectral)
    start = to_arrays("generator", initial_model("generator", plan))
    assert EXCHANGES["embedding"].released(plan).keys() == {**spectral, **start}.keys()
    furthest = max_displacement(stage, "generator", 1)
    near = {name: value + np.float32(0.9 * furthest) for name, value in start.items()}
    far = {name: value + np.float32(1.1 * furthest) for name, value in start.items()}
    seen.check_release({"spectral": spectral, "embedding": {**spectral, **near}})
    with pytest.raises(VerificationError, match="not where the plan's training"):
        seen.check_release({"spectral": spectral, "embedding": {**spectral, **far}})
    other = {**spectral, "spectral/mean": spectral["spectral/mean"] + 1}
    with pytest.raises(VerificationError, match="another one"):
        seen.check_round(stage, 1, other)
