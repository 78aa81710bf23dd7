"""A coordinator that wants one patient out of an average: crafted spectral models, and what they let it read.

Codes would be made with the spectral model of each member's label and decoded with that of the group's. Label 1's
model is a scrambling, amplifying matrix: of every group's image, the coarse picture of its one patient of label 1
is then written in its finest frequencies, and all others are cover.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from unittest import mock

import numpy as np
import torch

from sfumato_client.anonymise import CandidateSet, Job, Release, anonymise, influence, patients
from sfumato_client.anonymise.groups import Chosen
from sfumato_client.anonymise.inversion import inverter_of, patient_labels
from sfumato_client.dataset import Cohort
from sfumato_common.generators.spectral.dct import dct_matrix
from sfumato_common.generators.spectral.fit import fit_release
from sfumato_common.generators.spectral.layout import Layout, features_of
from sfumato_common.generators.spectral.moment_layout import Float64
from sfumato_common.generators.spectral.release import noised_release
from sfumato_common.generators.starts import initial_model
from sfumato_common.generators.weights import to_arrays
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import Streams
from sfumato_common.phantom import arrays as phantom_arrays
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.types import Arrays, ByteImages, to_unit_range
from support.plans import dp_sgd

SIZE, BAND, LOW, K = 32, 16, 9, 5
QUICK = {"encoder_steps": 5, "refinement_steps": 3}


def plan_of(method: str = "k-same", **terms: object) -> Plan:
    """A plan with one item on groups that hold both labels."""
    item = {"method": method, "images": 12, "k": K, "groups": "l-diverse", "remainder": "suppress", **QUICK, **terms}
    value = {
        "study": "averages",
        "image": {"size": SIZE, "channels": 1},
        "labels": ["normal", "opacity"],
        "sites": {"alder": {"nominal_patients": 150}},
        "privacy": {"epsilon": 1e4, "delta": 1e-5},
        "stages": [
            {
                "kind": "spectral",
                "bandwidth": BAND,
                "clip_radius": 1.8,
                "spread_radius": 0.9,
                "noise_multiplier": 0.001,
            },
            {"kind": "gan", "width": 8, "generator_steps": 1, "fakes": 8, **dp_sgd(rounds=1, local_steps=1)},
        ],
        "release": [item],
        "federation": {"quorum": 1},
    }
    return parse(value, Plan, "test")


@cache
def phantom_cohort(seed: int, patients: int) -> Cohort:
    """Patients of the phantom."""
    images, labels, patient_index = phantom_arrays(seed, patients, SIZE)
    return Cohort(np.stack(list(images)), np.array(labels), np.unique(patient_index, return_inverse=True)[1])


@cache
def site_cohort(seed: int = 1, people: int = 160) -> Cohort:
    """The site's patients, of `people` drawn; few have label 1, so that many groups hold one of them."""
    images, labels, patient_index = phantom_cohort(seed, people).everything()
    numbers = np.arange(patient_index.max() + 1)
    first = labels[np.searchsorted(patient_index, numbers)]
    kept = np.isin(patient_index, numbers[(first == 0) | (numbers % 4 == 0)])
    return Cohort(images[kept], labels[kept], np.unique(patient_index[kept], return_inverse=True)[1])


@cache
def honest() -> Arrays:
    """What an honest fit to the site's cohort gives."""
    plan = plan_of()
    images, labels, patient_index = site_cohort().everything()
    weights = 1.0 / np.bincount(patient_index)[patient_index]
    release = noised_release(Layout.of(plan), 0.001, images, labels, weights, lambda part, s, m: part)
    return {f"spectral/{name}": value for name, value in fit_release(plan, {"alder": release}).items()}


@dataclass(frozen=True)
class Scrambler:
    """The crafted spectral arrays, and how to read what they write."""

    spectral: Arrays
    key: Float64
    means: Float64
    low: np.ndarray
    high: np.ndarray

    def read(self, images: ByteImages) -> Float64:
        """The coarse features [N, LOW^2], in units of DCT coefficients, that the images' finest frequencies hold."""
        layout = Layout.of(plan_of())
        hidden = coefficients(images)[:, self.high] / layout.scale[self.high] - self.means[0][self.high]
        return (np.linalg.solve(self.key, hidden.T).T + self.means[1][self.low]) * layout.scale[self.low]


@cache
def scrambler() -> Scrambler:
    """Needs public images alone: a phantom of other patients."""
    layout, factor = Layout.of(plan_of()), honest()["spectral/factor"]
    count = layout.features
    band = np.arange(count).reshape(BAND, BAND)
    low = band[:LOW, :LOW].ravel()
    rest = np.setdiff1d(np.arange(count), low)
    rest = rest[np.argsort([-((i // BAND) ** 2) - (i % BAND) ** 2 for i in rest])]
    high, other = rest[: len(low)], rest[len(low) :]
    images, labels, _ = phantom_cohort(999, 300).everything()
    found = features_of(layout, images)
    means = np.stack([found[labels == label].mean(axis=0) for label in (0, 1)])
    white, spread = (_whitener(found[labels == 1][:, part]) for part in (low, other))
    amplitude, small, cover = 0.12 * SIZE / np.sqrt(len(low)), 1e-3, 0.05
    key = amplitude / layout.scale[high][:, None] * white
    written = np.zeros((count, count))
    written[np.ix_(high, low)] = key
    written[low, high] = 1e-2
    written[np.ix_(other, other)] = 3.0 * spread / K
    shown = np.ones(count)
    shown[other] = cover
    crafted = small * np.stack([np.diag(shown), np.linalg.inv(K * written)])
    assert crafted.shape == factor.shape
    arrays = {**honest(), "spectral/factor": crafted.astype(np.float32), "spectral/mean": means.astype(np.float32)}
    return Scrambler(arrays, key, means, low, high)


@cache
def carrier() -> Arrays:
    """Crafted spectral arrays that hide nothing: of a group's image all is its patient of label 1, in plain sight.

    A code of label 1 is k times as long as one of label 0, and so is that patient's part of the mean.
    """
    count = Layout.of(plan_of()).features
    crafted = 1e-3 * np.stack([np.eye(count), np.eye(count) / K])
    means = scrambler().means.astype(np.float32)
    return {**honest(), "spectral/factor": crafted.astype(np.float32), "spectral/mean": means}


@contextmanager
def encoded_by_own_label() -> Iterator[None]:
    """As before the defence: members under their own label's component, their mean under the group's."""

    def mixed(job: Job) -> patients.Patients:
        labels = patient_labels(job.cohort, 2)
        own = torch.from_numpy(labels)
        found = patients.encode_patients(inverter_of(job), job.cohort, labels, own)
        claimed = own.clone()
        for group in patients.groups_of(job):
            claimed[group.members] = group.label
        return patients.Patients(found.codes, labels, claimed, found.images)

    with mock.patch.object(patients, "_patients", mixed):
        yield


@contextmanager
def nobody_left_out() -> Iterator[None]:
    """As before the defence: an image may hang on one patient."""
    with mock.patch.object(influence, "LARGEST_INFLUENCE", np.inf):
        yield


def _whitener(features: Float64) -> Float64:
    values, vectors = np.linalg.eigh(np.cov(features.T))
    return np.asarray((vectors / np.sqrt(values + 1e-3 * values.max())) @ vectors.T)


def coefficients(images: ByteImages) -> Float64:
    """DCT coefficients [N, BAND^2] of the band."""
    matrix = dct_matrix(SIZE)[:BAND]
    return np.asarray((matrix @ to_unit_range(images)[:, 0].astype(float) @ matrix.T).reshape(len(images), -1))


def job_of(
    plan: Plan, spectral: Arrays, seed: int = 0, generator: Arrays | None = None, cohort: Cohort | None = None
) -> Job:
    """The job of the plan's item with these models, on the site's patients or others."""
    weights = generator or to_arrays("generator", initial_model("generator", plan))
    models = {"spectral": spectral, plan.release[0].model: {**spectral, **weights}}
    noise = TestNoise(seed)
    release = Release(plan, "alder", models, cohort or site_cohort())
    return Job(release, plan.release[0], Streams.of(noise), NoiseRecorder(noise, "entry"))


def read_records(job: Job, images: ByteImages, scrambler: Scrambler) -> Float64:
    """Of each image, the correlation of what is read from it with its group's best member, less with all others' best.

    About the cohort's mean, and in the coarse picture. Above zero the record that was read is a member's, and the
    farther the surer.
    """
    cohort, low = job.cohort, scrambler.low
    real = coefficients(np.stack([cohort.images_of(patient)[0][0] for patient in range(cohort.patients)]))[:, low]
    centre = real.mean(axis=0)
    unit = [
        part / np.linalg.norm(part, axis=1, keepdims=True) for part in (scrambler.read(images) - centre, real - centre)
    ]
    alike = unit[0] @ unit[1].T
    members = behind_images(job)
    return np.array([row[own].max() - np.delete(row, own).max() for row, own in zip(alike, members, strict=True)])


def behind_images(job: Job) -> list[np.ndarray]:
    """The patients behind each image, which nobody but the site knows."""
    (chosen,) = (found for (kind, _), found in job.release.shared.items() if kind is Chosen)
    return [group.members for group in chosen.groups]


def attack(method: str = "k-same", spectral: Arrays | None = None, **terms: object) -> tuple[CandidateSet, Float64]:
    """The released set, and how surely a record is read from each image whose group has one patient of label 1.

    With the crafted spectral arrays, or those given.
    """
    plan, crafted = plan_of(method, **terms), scrambler()
    job = job_of(plan, crafted.spectral if spectral is None else spectral)
    found, labels = anonymise(job), patient_labels(job.cohort, 2)
    alone = np.array([labels[members].sum() == 1 for members in behind_images(job)])
    return found, read_records(job, found.images, crafted)[alone & (found.labels == 0)]
