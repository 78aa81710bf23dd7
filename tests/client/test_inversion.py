"""Inversion: an encoder that knows generated pairs only, codes that are each a record's own, and a patient's."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from sfumato_client.anonymise.contract import Job, Release
from sfumato_client.anonymise.groups import groups_of
from sfumato_client.anonymise.inversion import (
    Inverter,
    code_of_patient,
    drawn_images,
    inverter_of,
    patient_labels,
    reconstruction_report,
    space_of,
)
from sfumato_client.anonymise.patients import averages_of, patients_of
from sfumato_client.dataset import Cohort
from sfumato_common.errors import ReleaseRefused
from sfumato_common.generators.gan.encoder import Encoder
from sfumato_common.generators.gan.inversion import LARGEST_CHANGE, clip_codes
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.starts import initial_model
from sfumato_common.generators.weights import to_arrays
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import Streams
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.release import KSame
from sfumato_common.types import to_bytes, to_unit_range

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")


def plan_of(size: int = 16, channels: int = 1, bits: int = 8) -> Plan:
    dp = {"rounds": 1, "local_steps": 1, "sampling_rate": 0.2, "clipping_norm": 1.0, "noise_multiplier": 1.0}
    value = {
        "study": "small",
        "image": {"size": size, "channels": channels, "bits": bits},
        "labels": ["normal", "opacity"],
        "sites": {"alder": {"nominal_patients": 100}, "birch": {"nominal_patients": 100}},
        "privacy": {"epsilon": 10.0, "delta": 1e-5},
        "stages": [
            {"kind": "spectral", "bandwidth": 4, "clip_radius": 4.0, "noise_multiplier": 1.0, "by_site": True},
            {"kind": "gan", "width": 8, "learning_rate": 0.001, **dp},
        ],
        "release": [{"model": "gan", "images": 4}],
        "federation": {"quorum": 1},
    }
    return parse(value, Plan, "test")


def released(plan: Plan) -> dict[str, np.ndarray]:
    """A spectral model with four components, and a generator far from its start."""
    layout, rng = Layout.of(plan), np.random.default_rng(0)
    d = layout.features
    basis = np.linalg.qr(rng.normal(size=(d, d)))[0]
    spectral = {
        "shares": np.array([0.3, 0.2, 0.4, 0.1]),
        "mean": 0.3 * rng.normal(size=(4, d)),
        "factor": np.stack([0.1 * (basis * rng.uniform(0.5, 2.0, d)) @ basis.T] * 4),
        "signal": np.stack([np.eye(d)] * 4),
        "tail": np.ones(4),
    }
    generator, draw = initial_model("generator", plan), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=draw)
    arrays = {f"spectral/{name}": value.astype(np.float32) for name, value in spectral.items()}
    return {**arrays, **to_arrays("generator", generator)}


def job_of(plan: Plan, cohort: Cohort | None = None, seed: int = 0, **terms) -> Job:
    item = KSame(**{"method": "k-same", "images": 4, "encoder_steps": 20, "refinement_steps": 5, **terms})
    arrays = released(plan)
    streams = Streams.of(TestNoise(seed))
    recorder = NoiseRecorder(TestNoise(seed), "entry")
    return Job(Release(plan, "birch", {"gan": arrays, "spectral": arrays}, cohort), item, streams, recorder)


def generated(job: Job, count: int, seed: int = 3) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """Images of the job's space in bytes, with their components (of site birch) and codes."""
    space, rng = space_of(job), torch.Generator().manual_seed(seed)
    y = 2 + torch.randint(0, 2, (count,), generator=rng)
    with torch.no_grad():
        w, noise = space.draw(y, TorchDraws(rng))
        return to_bytes(space.decode(w, y, noise).numpy(), job.plan.image.bits), y, w


def cohort_of(job: Job, patients: int = 5, seed: int = 3) -> Cohort:
    """Generated images, one to three a patient, in no order."""
    rng = np.random.default_rng(seed)
    patient_index = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    patient_index = rng.permutation(patient_index)
    images, components, _ = generated(job, len(patient_index), seed)
    return Cohort(images, (components % 2).numpy(), patient_index)


@pytest.fixture(scope="module")
def trained() -> Job:
    """A job whose encoder has learned something."""
    job = job_of(plan_of(), encoder_steps=120, refinement_steps=8)
    inverter_of(job)
    return job


def changed(job: Job, **terms) -> Job:
    """The job in a release of its own that differs in `terms`, and shares nothing with the first."""
    return dataclasses.replace(job, release=dataclasses.replace(job.release, **{"shared": {}, **terms}))


def refined(inverter: Inverter, steps: int) -> Inverter:
    """The inverter with other refinement steps."""
    return dataclasses.replace(inverter, encoding=dataclasses.replace(inverter.encoding, refinement_steps=steps))


def test_an_untrained_encoder_changes_nothing():
    job = job_of(plan_of(), encoder_steps=0, refinement_steps=0)
    images, y, _ = generated(job, 5)
    found = inverter_of(job).codes(images, y)
    assert torch.equal(found, space_of(job).encode(torch.from_numpy(to_unit_range(images)), y))
    pair, gap = torch.randn(5, 2, 16, 16), torch.randn(5, 16)
    assert not Encoder(job.plan, torch.Generator().manual_seed(1))(pair, gap, y).any()


def test_the_encoder_brings_codes_and_images_nearer_to_unseen_generated_ones(trained):
    images, y, w = generated(trained, 64)
    start = inverter_of(job_of(trained.plan, encoder_steps=0, refinement_steps=0)).codes(images, y)
    encoder = refined(inverter_of(trained), 0).codes(images, y)
    error = lambda found: float((found - w).square().mean())  # noqa: E731
    # what it adds to the closed form is bounded, so that no model of a coordinator's can make much of one member
    assert error(encoder) < error(start)
    assert error(start) < float((space_of(trained).centre(y) - w).square().mean()), "where the closed form starts"
    report = reconstruction_report(inverter_of(trained), images, y)
    assert list(report) == ["closed form", "encoder", "refined"]
    errors = [line.rmse for line in report.values()]
    assert errors[0] > errors[1] > errors[2]
    assert report["closed form"].correlation < report["encoder"].correlation < report["refined"].correlation < 1.0


def test_the_report_says_what_its_words_mean(trained):
    images, y, _ = generated(trained, 9)
    inverter = inverter_of(trained)
    with torch.no_grad():
        seen = inverter.space.decode(inverter.codes(images, y), y).numpy().reshape(9, -1)
    real = to_unit_range(images).reshape(9, -1)
    found = reconstruction_report(inverter, images, y)["refined"]
    assert found.rmse == pytest.approx(np.sqrt(((seen - real) ** 2).mean()), rel=1e-4)
    wanted = np.mean([np.corrcoef(one, two)[0, 1] for one, two in zip(seen, real, strict=True)])
    assert found.correlation == pytest.approx(wanted, abs=1e-4)


def test_refinement_brings_every_image_nearer():
    job = job_of(plan_of(), encoder_steps=0, refinement_steps=20)
    images, y, _ = generated(job, 12)
    x, space = torch.from_numpy(to_unit_range(images)), space_of(job)
    near = lambda w: (space.decode(w, y) - x).square().flatten(1).mean(dim=1)  # noqa: E731
    assert (near(inverter_of(job).codes(images, y)) < near(space.encode(x, y))).all()


def test_the_encoder_is_told_the_component(trained):
    images, y, _ = generated(trained, 4)
    x = torch.from_numpy(to_unit_range(images))
    pair, gap = torch.cat([x, x], dim=1), torch.zeros(4, 16)
    encoder = inverter_of(trained).encoding.encoder
    assert (encoder(pair, gap, y) - encoder(pair, gap, (y + 1) % 4)).abs().max() > 1e-4


def test_training_reads_no_record_and_no_secret():
    plan = plan_of()
    one, two = (inverter_of(job_of(plan, cohort, seed)) for seed, cohort in enumerate((None, cohort_of(job_of(plan)))))
    for a, b in zip(one.encoding.encoder.parameters(), two.encoding.encoder.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not a.requires_grad
    assert any(parameter.abs().max() > 0 for parameter in (one.encoding.encoder.head.weight, one.encoding.encoder.gain))


def test_what_inverts_alike_is_computed_once():
    plan = plan_of()
    job = job_of(plan, encoder_steps=3)
    job = changed(job, cohort=cohort_of(job))
    for make in (inverter_of, patients_of):
        assert make(dataclasses.replace(job, item=job.item.model_copy(update={"images": 7}))) is make(job)
        for other in ({"encoder_steps": 4}, {"refinement_steps": 4}):
            assert make(dataclasses.replace(job, item=job.item.model_copy(update=other))) is not make(job)


@pytest.mark.parametrize(("steps", "tolerance"), [(0, 1e-5), (8, 1e-3)])
def test_a_code_does_not_depend_on_the_other_records(trained, monkeypatch, steps, tolerance):
    images, y, _ = generated(trained, 7)
    inverter = refined(inverter_of(trained), steps)
    whole = inverter.codes(images, y)
    others = images.copy()
    others[[0, 1, 3, 5, 6]] = 255 - others[[0, 1, 3, 5, 6]]
    assert torch.allclose(inverter.codes(others, y)[[2, 4]], whole[[2, 4]], atol=tolerance)
    assert (inverter.codes(others, y)[[0, 1]] - whole[[0, 1]]).abs().max() > 0.1
    monkeypatch.setenv("SFUMATO_MEMORY", "1")
    assert torch.allclose(inverter.codes(images, y), whole, atol=tolerance)


def test_a_patients_code_has_the_same_bits_in_every_cohort(trained):
    cohort = cohort_of(trained)
    images, labels, patient_index = cohort.everything()
    fewer = patient_index != 0
    without = Cohort(images[fewer], labels[fewer], patient_index[fewer] - 1)
    inverter, component = inverter_of(trained), torch.tensor(2)
    for patient in range(1, cohort.patients):
        one = code_of_patient(inverter, cohort, patient, component)
        assert torch.equal(one, code_of_patient(inverter, without, patient - 1, component))


def test_a_patient_is_the_mean_of_the_codes_and_shows_the_image_nearest_to_it(trained):
    cohort = cohort_of(trained)
    job = changed(trained, cohort=cohort, shared=dict(trained.release.shared))
    found, inverter = patients_of(job), inverter_of(job)
    assert (found.codes.shape, found.codes.dtype) == ((5, 16), torch.float32)
    assert found.images.shape == (5, 16, 16)
    assert (found.labels.dtype, found.components.tolist()) == (np.int64, (found.labels + 2).tolist())
    for patient in range(cohort.patients):
        images, _ = cohort.images_of(patient)
        codes = inverter.codes(images, found.components[patient].expand(len(images)))
        assert torch.allclose(found.codes[patient], codes.mean(dim=0), atol=1e-4)
        assert torch.allclose(
            found.codes[patient], code_of_patient(inverter, cohort, patient, found.components[patient]), atol=1e-4
        )
        nearest = images[(codes - codes.mean(dim=0)).norm(dim=1).argmin()]
        ties = len(images) == 2  # both are as near
        assert any(np.array_equal(found.images[patient], one) for one in (images if ties else [nearest]))


def test_what_refinement_adds_is_clipped_in_public_units_whatever_the_model_is(trained):
    space, (images, y, w) = space_of(trained), generated(trained, 4)
    closed = space.encode(torch.from_numpy(to_unit_range(images)), y)
    near = closed + 1e-4 * torch.randn(closed.shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(clip_codes(space, closed, near, y), near), "within the radius a code keeps its bits"
    limit = LARGEST_CHANGE * torch.as_tensor(space.spectral.layout.prior).sqrt().float()
    for far in (closed + 50.0 * (w - closed) + 3.0, torch.full_like(closed, 1e6), torch.full_like(closed, torch.nan)):
        moved = space.spectral.features_from(clip_codes(space, closed, far, y) - closed, y).abs()
        assert bool((moved <= limit * 1.001 + 1e-5).all())


def test_members_are_encoded_under_what_their_group_is_decoded_under(trained):
    cohort = cohort_of(trained, patients=12)
    job = changed(trained, cohort=cohort, shared=dict(trained.release.shared))
    item = job.item.model_copy(update={"groups": "l-diverse", "k": 3})
    job = dataclasses.replace(job, item=item)
    patients, groups = patients_of(job), groups_of(job)
    assert any(len(set(patients.labels[group.members].tolist())) == 2 for group in groups)
    for group in groups:
        assert set(patients.components[group.members].tolist()) == {group.label + 2}
    rows = [torch.from_numpy(group.members) for group in groups]
    means = averages_of(patients, rows)
    assert means.components.tolist() == [group.label + 2 for group in groups]
    mixed = dataclasses.replace(patients, components=torch.from_numpy(patients.labels) + 2)
    with pytest.raises(ReleaseRefused, match="several components"):
        averages_of(mixed, rows)


def test_a_patients_label_is_the_commonest_and_the_lowest_on_a_tie():
    labels, patient_index = np.array([2, 1, 1, 2, 0, 2, 2]), np.array([0, 0, 0, 1, 1, 2, 2])
    cohort = Cohort(np.zeros((7, 4, 4), np.uint8), labels, patient_index)
    assert patient_labels(cohort, 3).tolist() == [1, 0, 2]
    assert patient_labels(Cohort(cohort.images[:0], labels[:0], patient_index[:0]), 3).tolist() == []


def test_images_of_codes_have_their_texture_from_the_jobs_published_stream():
    plan = plan_of()
    first, again, other = (job_of(plan, seed=seed) for seed in (0, 0, 1))
    _, y, w = generated(first, 3)
    one, two, three = (drawn_images(job, space_of(job), w, y) for job in (first, again, other))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, three)
    with torch.no_grad():
        smooth = to_bytes(space_of(first).decode(w, y).numpy())
    assert 0.5 < np.abs(one.astype(float) - smooth).mean() < 40


@pytest.mark.parametrize(("channels", "bits", "shape"), [(3, 8, (3, 16, 16, 3)), (1, 16, (3, 16, 16))])
def test_colour_and_sixteen_bits_invert_too(channels, bits, shape):
    job = job_of(plan_of(channels=channels, bits=bits), encoder_steps=2, refinement_steps=1)
    images, y, _ = generated(job, 3)
    assert (images.shape, images.dtype) == (shape, np.dtype(f"uint{bits}"))
    inverter = inverter_of(job)
    assert isinstance(inverter, Inverter)
    assert inverter.codes(images, y).shape == (3, 16 * channels)
    assert inverter.codes(images[:0], y[:0]).shape == (0, 16 * channels)
    drawn = drawn_images(job, inverter.space, inverter.codes(images, y), y)
    assert (drawn.shape, drawn.dtype) == (images.shape, images.dtype)
