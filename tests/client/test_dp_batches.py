"""Batches: Poisson over patients, at most m images each, and one public shape whoever came."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from tests.client.test_training_stages import inbound, plan_of

from sfumato_client.dataset.cohort import Cohort
from sfumato_client.training import StageJob, train
from sfumato_client.training.dp import bookkeeping, vmap
from sfumato_client.training.dp.batches import capacity, patient_batches, placed_samples
from sfumato_common.generators.flow.settings import FlowStage
from sfumato_common.mechanisms.noise import SecureNoise, TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import SecretStream

FORM = (1, 16, 16)


def stage(rate: float = 0.1, steps: int = 1, views: int = 1) -> FlowStage:
    return FlowStage(
        kind="flow",
        rounds=1,
        local_steps=steps,
        sampling_rate=rate,
        clipping_norm=1.0,
        noise_multiplier=1.0,
        learning_rate=0.1,
        images_per_patient=views,
    )


def cohort(patients: int = 40, most: int = 5) -> Cohort:
    """Image 0 of patient p is filled with 5 p, image 1 with 5 p + 1, ...; patients have 1 to `most` images."""
    counts = np.arange(patients) % most + 1
    patient_index = np.repeat(np.arange(patients), counts)
    values = 5 * patient_index + np.concatenate([np.arange(count) for count in counts])
    images = np.repeat(values[:, None, None], 16, axis=1).repeat(16, axis=2).astype(np.uint8)
    return Cohort(images, (patient_index % 2).astype(np.int64), patient_index)


def batches(data: Cohort, terms: FlowStage, nominal: int = 40):
    for (batch,) in patient_batches(data, terms, nominal, SecretStream(SecureNoise()), FORM):
        yield batch


def values_of(batch) -> np.ndarray:
    return np.rint((batch.images[:, 0, 0, 0].numpy() + 1) * 127.5).astype(int).reshape(batch.weights.shape)


def test_batches_are_poisson_over_patients():
    sizes, members = [], np.zeros(40)
    for batch in batches(cohort(), stage(steps=1500)):
        took = batch.weights[:, 0] > 0
        chosen = values_of(batch)[took, 0] // 5
        assert len(set(chosen)) == len(chosen)
        assert np.array_equal(batch.labels.numpy()[took], chosen % 2)
        members[chosen] += 1
        sizes.append(len(chosen))
    assert 0 in sizes  # (0.9)^40 = 1.5 %: empty batches happen and are yielded, not skipped
    assert np.mean(sizes) == pytest.approx(4.0, abs=0.3)
    assert np.var(sizes) == pytest.approx(40 * 0.1 * 0.9, abs=0.6)
    assert np.abs(members / 1500 - 0.1).max() < 0.04


@pytest.mark.parametrize("views", [1, 3])
def test_a_patient_brings_distinct_images_that_count_as_one(views):
    seen: dict[int, set[int]] = {}
    for batch in batches(cohort(), stage(0.5, 300, views)):
        assert batch.images.shape == (len(batch.weights) * views, *FORM)
        assert batch.labels.shape == (len(batch.weights) * views,)
        for values, weights in zip(values_of(batch), batch.weights.numpy(), strict=True):
            if not weights.any():
                continue
            patient, own = values[0] // 5, values[0] // 5 % 5 + 1
            kept = values[weights > 0]
            assert len(kept) == len(set(kept)) == min(views, own)
            assert set(weights[weights > 0]) == {np.float32(1.0 / len(kept))}
            assert all(0 <= value - 5 * patient < own for value in values)
            seen.setdefault(int(patient), set()).update(int(value) for value in kept)
    # with some 150 draws each, every image of every patient comes up sooner or later
    assert all(len(values) == patient % 5 + 1 for patient, values in seen.items())


@pytest.mark.parametrize(
    ("rate", "nominal", "places"), [(1e-9, 40, 32), (0.1, 40, 32), (0.1, 640, 96), (0.5, 256, 192)]
)
def test_capacity_is_four_deviations_above_the_nominal_mean(rate, nominal, places):
    assert capacity(stage(rate), nominal) == places
    mean = rate * nominal
    assert places % 32 == 0 and places - 32 < mean + 4 * math.sqrt(mean) <= places


@pytest.mark.parametrize("patients", [1, 50, 100])
def test_the_shape_of_a_batch_does_not_tell_how_many_came(patients):
    terms = stage(0.4, 30, 2)
    shapes = {tuple(batch.images.shape) for batch in batches(cohort(patients), terms, nominal=100)}
    assert shapes == {(96 * 2, *FORM)}


def test_more_patients_than_a_batch_holds_fill_further_ones_of_the_same_shape():
    data, places = cohort(200, 1), capacity(stage(0.5), 20)
    for batches_of_step in patient_batches(data, stage(0.5, 5), 20, SecretStream(SecureNoise()), FORM):
        came = sum(int((batch.weights.sum(dim=1) > 0).sum()) for batch in batches_of_step)
        assert came > 60 > places
        assert len(batches_of_step) == math.ceil(came / places)
        assert {tuple(batch.images.shape) for batch in batches_of_step} == {(places, *FORM)}
        values = np.concatenate([values_of(batch)[batch.weights[:, 0].numpy() > 0, 0] for batch in batches_of_step])
        assert len(set(values)) == came


def test_who_came_stands_in_random_places_and_goes_to_a_further_batch_at_random():
    """What the bound on roundings rests on: a patient more leaves others where they are, and moves one at most."""
    places, steps, filled, further = 32, 3000, np.zeros(32), np.zeros(64)
    for drawn in placed_samples(64, stage(0.5, steps), places, SecretStream(TestNoise(1))):
        patients, seats = (np.concatenate(part) for part in zip(*drawn, strict=True))
        assert len(set(patients.tolist())) == len(patients)
        assert all(len(set(own.tolist())) == len(who) for who, own in drawn)
        assert seats.min() >= 0 and seats.max() < places
        assert all(len(who) == places for who, _ in drawn[:-1]), "a batch is full before another begins"
        if len(drawn) == 1:
            filled[seats] += 1
        else:
            further[drawn[1][0]] += 1
    assert chisquare(filled).pvalue > 1e-4 and chisquare(further).pvalue > 1e-4
    assert min(filled.sum(), further.sum()) > 1000


class _Nobody:
    """A cohort without patients."""

    patients = 0

    def images_of(self, patient: int):
        raise AssertionError("nobody is here")


@pytest.mark.parametrize("kind", ["gan", "flow"])
def test_engines_do_the_same_work_whatever_the_cohort(kind, monkeypatch):
    rows: list[int] = []
    for module in (bookkeeping, vmap):
        inner = module.chunks

        def counted(records, weights, size, inner=inner):
            for part, own in inner(records, weights, size):
                rows.append(len(part[0]))
                yield part, own

        monkeypatch.setattr(module, "chunks", counted)
    plan = plan_of()
    nominal = plan.sites["alder"].nominal_patients
    work = []
    for data in (_Nobody(), cohort(nominal // 2), cohort(nominal)):
        rows.clear()
        noise = SecureNoise()
        train(
            StageJob(
                plan, "alder", plan.stage(kind), 1, inbound(plan, kind), data, noise, NoiseRecorder(noise, "entry")
            )
        )
        work.append(list(rows))
    assert work[0] == work[1] == work[2] and sum(work[0]) >= 32 * plan.stage(kind).local_steps


def test_a_batch_is_float32_in_the_unit_range():
    batch = next(iter(batches(cohort(), stage(0.5))))
    assert batch.images.dtype == torch.float32 and batch.images.abs().max() <= 1.0
