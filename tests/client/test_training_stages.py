"""Stage trainers at a site: what leaves fits the schema, is noised, and depends on public rates and denominators."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch

from sfumato_client.dataset.cohort import Cohort
from sfumato_client.training import StageJob, train
from sfumato_common.accounting.events import same_mechanisms
from sfumato_common.errors import VerificationError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators import NETWORKS
from sfumato_common.generators.schemas import weights_schema
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.starts import initial_model
from sfumato_common.generators.update import UPDATE, unpack_update
from sfumato_common.generators.weights import to_arrays
from sfumato_common.mechanisms.noise import SecureNoise, TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
DP = {"rounds": 1, "local_steps": 3, "sampling_rate": 0.3, "clipping_norm": 1.0, "learning_rate": 1e-3}
KINDS = ("spectral", "gan", "flow")


def plan_of(channels: int = 1, sigma: float = 1.0, nominal: int = 30) -> Plan:
    value = {
        "study": "small",
        "image": {"size": 16, "channels": channels},
        "labels": ["normal", "opacity"],
        "sites": {"alder": {"nominal_patients": nominal}},
        "privacy": {"epsilon": 10.0, "delta": 1e-5},
        "stages": [
            {"kind": "spectral", "bandwidth": 4, "clip_radius": 3.0, "noise_multiplier": sigma},
            {"kind": "gan", "width": 8, "fakes": 4, "noise_multiplier": sigma, **DP},
            {"kind": "flow", "steps_per_level": 1, "hidden": 8, "noise_multiplier": sigma, **DP},
        ],
        "release": [{"model": "spectral", "images": 4}],
        "federation": {"quorum": 1},
    }
    return parse(value, Plan, "test")


def cohort_of(plan: Plan, patients: int = 25) -> Cohort:
    rng = np.random.default_rng(0)
    patient_index = np.repeat(np.arange(patients), 2)
    shape = (len(patient_index), 16, 16) if plan.image.channels == 1 else (len(patient_index), 16, 16, 3)
    return Cohort(rng.integers(0, 256, shape).astype(np.uint8), rng.integers(0, 2, len(patient_index)), patient_index)


def inbound(plan: Plan, kind: str) -> dict[str, np.ndarray]:
    layout = Layout.of(plan)
    k, d = layout.classes, layout.features
    arrays = {
        "spectral/shares": np.full(k, 1.0 / k),
        "spectral/mean": np.zeros((k, d)),
        "spectral/factor": np.stack([np.eye(d)] * k) * 0.2,
        "spectral/signal": np.stack([np.eye(d)] * k),
        "spectral/tail": np.ones(k),
    }
    for name in ("generator", "discriminator", "flow"):
        arrays.update(to_arrays(name, initial_model(name, plan)))
    return {name: arrays[name].astype(np.float32) for name in EXCHANGES[kind].sent(plan)}


def updated_weights(plan, kind):
    """The weights whose change a site sends."""
    name = {"gan": "discriminator", "flow": "flow"}[kind]
    return weights_schema(plan, {name: NETWORKS[name]})


def run(plan: Plan, kind: str, cohort: Cohort | None = None, noise: object = None) -> dict[str, np.ndarray]:
    return dict(train(job_of(plan, kind, cohort, noise)))


def job_of(plan: Plan, kind: str, cohort: Cohort | None = None, noise: object = None) -> StageJob:
    cohort, noise = cohort or cohort_of(plan), noise or SecureNoise()
    return StageJob(
        plan, "alder", plan.stage(kind), 1, inbound(plan, kind), cohort, noise, NoiseRecorder(noise, "entry")
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_what_leaves_is_exactly_the_schema(kind, channels):
    plan = plan_of(channels)
    arrays, schema = run(plan, kind), EXCHANGES[kind].returned(plan)
    assert arrays.keys() == schema.keys()
    assert all(schema[name].matches(value) and schema[name].sound(value) for name, value in arrays.items())


@pytest.mark.parametrize("kind", KINDS)
def test_two_runs_differ_by_their_noise_and_test_noise_repeats(kind):
    plan = plan_of()
    first, second = run(plan, kind), run(plan, kind)
    assert all(not np.array_equal(first[name], second[name]) for name in first)
    one, two = run(plan, kind, noise=TestNoise(1)), run(plan, kind, noise=TestNoise(1))
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_classes_of_each_site_change_no_bit_of_a_sites_release():
    plan = plan_of()
    first = plan.stages[0].model_copy(update={"by_site": True})
    apart = plan.model_copy(update={"stages": [first, *plan.stages[1:]]})
    assert apart.stage("spectral").by_site and apart.digest != plan.digest
    whole, own = (run(some, "spectral", noise=TestNoise(3)) for some in (plan, apart))
    assert whole.keys() == own.keys()
    assert all(np.array_equal(whole[name], own[name]) for name in whole)


def test_spectral_noise_has_the_plans_size():
    plan = plan_of(sigma=3.0)
    runs = [run(plan, "spectral") for _ in range(20)]
    for name in ("sums", "moments"):
        assert np.std([value[name] for value in runs], axis=0).mean() == pytest.approx(3.0, rel=0.15)


class _Watched:
    """A cohort of one patient that says how often it was asked for anything but single patients."""

    patients = 1

    def __init__(self, inner: Cohort) -> None:
        self._inner = inner

    def images_of(self, patient: int):
        return self._inner.images_of(patient)

    def everything(self):
        raise AssertionError("DP-SGD may only see sampled patients")


@pytest.mark.parametrize("kind", ["gan", "flow"])
def test_dp_sgd_reads_sampled_patients_only_and_survives_empty_batches(kind):
    plan = plan_of()
    arrays, schema = run(plan, kind, _Watched(cohort_of(plan))), EXCHANGES[kind].returned(plan)
    assert all(schema[name].sound(value) for name, value in arrays.items())


@pytest.mark.parametrize("kind", ["gan", "flow"])
def test_every_parameter_moves_even_when_nobody_was_sampled(kind):
    plan = plan_of()
    plan = plan.model_copy(
        update={"stages": [s.model_copy(update={"sampling_rate": 1e-9}) if s.kind == kind else s for s in plan.stages]}
    )
    changes = unpack_update(run(plan, kind)[UPDATE], updated_weights(plan, kind))
    assert all(change.all() for change in changes.values())


def test_the_denominator_is_the_nominal_one():
    from sfumato_client.training.dp.step import PrivateGradient

    class Ones:
        def clipped_sum(self, records, clipping_norm, weights=None):
            return [torch.full((1,), 90.0)]

    for patients in (5, 25):
        plan = plan_of(sigma=1e-6, nominal=30)
        job = job_of(plan, "flow", cohort_of(plan, patients))
        mean = PrivateGradient(job, Ones())([((), torch.ones(1, 1))])
        assert float(mean[0]) == pytest.approx(90.0 / (0.3 * 30), rel=1e-4)


def test_weights_that_do_not_fit_are_refused():
    plan = plan_of()
    job = job_of(plan, "flow")
    arrays = dict(job.inbound)
    arrays.popitem()
    with pytest.raises(VerificationError, match="do not fit"):
        train(dataclasses.replace(job, inbound=arrays))


@pytest.mark.parametrize("kind", KINDS)
def test_the_meter_counts_exactly_what_the_ledger_is_charged(kind):
    plan = plan_of(sigma=1.3)
    job = job_of(plan, kind)
    train(job)
    assert same_mechanisms([plan.stage(kind).event], job.recorder.executed)


def test_the_spectral_stage_imports_no_opacus():
    code = "import sys, sfumato_client.training.spectral as s; print('opacus' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split()[0] == "False"
