"""What `audit_privacy.py` attacks: every way from patients to what leaves, each by the product's own code.

A canary is chosen among extreme images by what it moves, as an auditor would. Each target says what the claim is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import beta, chi2
from torch import Tensor, nn

from sfumato_client.audit.copies import copied_patients
from sfumato_client.dataset.cohort import Cohort
from sfumato_client.training import StageJob, train
from sfumato_client.training.dp.batches import patient_batches, placed_samples
from sfumato_client.training.dp.engines import private_engine
from sfumato_client.training.dp.step import PrivateGradient
from sfumato_client.training.utility import score_histogram
from sfumato_common.generators.settings import DpSgdStage
from sfumato_common.generators.spectral.fit import fit_release
from sfumato_common.mechanisms.latent_noise import LatentMechanism
from sfumato_common.mechanisms.noise import NoiseSource, SecureNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import SecretStream
from sfumato_common.metrics.choice import classifiers_schema
from sfumato_common.metrics.utility import classifier_schema
from sfumato_common.strict import parse
from sfumato_common.study.gate_rules import GateRules
from sfumato_common.study.plan import Plan
from sfumato_common.types import Arrays, to_unit_range

Floats = npt.NDArray[np.float64]
SIZE, PATIENTS, DELTA, SITE = 16, 40, 1e-5, "alder"
CONFIDENCE = 0.999  # of every bound
NOISE = 0.8  # of one-shot mechanisms: mu = 1.25


@dataclass(frozen=True)
class Target:
    """One mechanism, with what is claimed of it, and one of three ways to measure that.

    `run` releases on the cohort with or without the canary; `score` is high when the canary is there; `measure` gives
    an estimate and a lower bound after so many runs. `weaker` is the faulty self where that is not half the noise.
    """

    name: str
    claimed: float
    run: Callable[[bool, NoiseRecorder, NoiseSource], object] | None = None
    score: Callable[[bool], float] | None = None
    measure: Callable[[int], tuple[float, float]] | None = None
    weaker: Target | None = None
    figure: str = "mu"


def plan_of(radii: str = "fixed") -> Plan:
    """A small plan with every kind of release."""
    spectral = {"kind": "spectral", "bandwidth": 6, "clip_radius": 1.8, "noise_multiplier": NOISE, "radii": radii}
    dp = {"rounds": 1, "local_steps": 2, "sampling_rate": 0.3, "clipping_norm": 1.0, "noise_multiplier": 1.0}
    return parse(
        {
            "study": "audit",
            "image": {"size": SIZE},
            "labels": ["normal", "opacity"],
            "sites": {SITE: {"nominal_patients": PATIENTS}},
            "privacy": {"epsilon": 1000.0, "delta": DELTA},
            "stages": [
                spectral if radii == "charged" else {**spectral, "spread_radius": 0.9},
                {"kind": "embedding", "noise_multiplier": NOISE, "width": 8, "generator_steps": 1},
                {"kind": "flow", "levels": 1, "steps_per_level": 1, "hidden": 8, "learning_rate": 0.001, **dp},
                {"kind": "choice", "noise_multiplier": NOISE, "images": 60},
            ],
            "release": [{"model": "best", "images": 4}],
            "utility": {"noise_multiplier": NOISE},
            "federation": {"quorum": 1},
        },
        Plan,
        "audit",
    )


def appearance_plan(radii: str) -> Plan:
    """A plan of the appearance release alone, where images lie: the pose is part of the public map."""
    own = {"alignment": "none", "detail": "noise", "noise_multiplier": NOISE, "radii": radii}
    values = plan_of().model_dump(mode="json") | {"stages": [{"kind": "appearance", **own}], "utility": None}
    return parse(values | {"release": [{"model": "appearance", "images": 4}]}, Plan, "audit")


def canaries() -> list[npt.NDArray[np.uint8]]:
    """Images far from what patients look like."""
    down, across = np.indices((SIZE, SIZE))
    tiles = [np.where((down // step + across // step) % 2, 255, 0) for step in (1, 2, 4, 8)]
    return [some.astype(np.uint8) for some in (*tiles, np.zeros((SIZE, SIZE)), np.full((SIZE, SIZE), 255))]


def cohort(canary: npt.NDArray[np.uint8] | None) -> Cohort:
    """Smooth patients, and one more with two alike images where there is a canary."""
    rng = np.random.default_rng(3)
    images = rng.integers(60, 200, (PATIENTS, 4, 4)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    labels, patients = rng.integers(0, 2, PATIENTS), np.arange(PATIENTS)
    if canary is not None:
        images = np.concatenate([images, canary[None], canary[None]])
        labels, patients = np.append(labels, [1, 1]), np.append(patients, [PATIENTS, PATIENTS])
    return Cohort(images, labels, patients)


class Quiet(NoiseRecorder):
    """A recorder without noise, which keeps what was to be noised over its scale: to choose a canary by."""

    def __init__(self) -> None:
        super().__init__(SecureNoise(), "quiet")
        self.values: list[Floats] = []

    def gaussian(self, value: Any, sensitivity: float, noise_multiplier: float) -> Floats:
        self.values.append(np.asarray(value, dtype=np.float64).ravel() / (sensitivity * noise_multiplier))
        return np.asarray(value, dtype=np.float64)


Work = Callable[[Cohort, NoiseRecorder, NoiseSource], object]


def _strongest(work: Work) -> npt.NDArray[np.uint8]:
    def moved(canary: npt.NDArray[np.uint8] | None) -> Floats:
        quiet = Quiet()
        work(cohort(canary), quiet, SecureNoise())
        return np.concatenate(quiet.values)

    without = moved(None)
    return max(canaries(), key=lambda canary: float(np.linalg.norm(moved(canary) - without)))


def matched_target(name: str, work: Work) -> Target:
    """A one-shot release, whose transcript is matched with and without the canary that moves it most."""
    canary = _strongest(work)

    def run(present: bool, recorder: NoiseRecorder, noise: NoiseSource) -> object:
        return work(cohort(canary if present else None), recorder, noise)

    return Target(name, 1.0 / NOISE, run)


@cache
def spectral_arrays() -> Arrays:
    """A fitted spectral model of these patients, which later stages start from."""
    plan, noise = plan_of(), SecureNoise()
    job = StageJob(plan, SITE, plan.stage("spectral"), 1, {}, cohort(None), noise, NoiseRecorder(noise, "fit"))
    return {f"spectral/{name}": value for name, value in fit_release(plan, {SITE: dict(train(job))}).items()}


def _weights(schema: Any) -> Arrays:
    """Classifiers of any weights: the claim holds for crafted ones."""
    rng = np.random.default_rng(1)
    return {name: rng.normal(0, 1, spec.shape).astype(spec.dtype) for name, spec in schema.items()}


def one_shot_targets() -> list[Target]:
    """What leaves in one noised answer of all patients: mu = 1 / noise multiplier."""

    def stage(kind: str, inbound: Callable[[], Arrays], plan: Plan) -> Work:
        def work(some: Cohort, recorder: NoiseRecorder, noise: NoiseSource) -> object:
            return train(StageJob(plan, SITE, plan.stage(kind), 1, inbound(), some, noise, recorder))

        return work

    plan = plan_of()
    classifiers, classifier = _weights(classifiers_schema(plan)), _weights(classifier_schema(plan))
    copies = cohort(None).images[:10]

    def gate(some: Cohort, recorder: NoiseRecorder, noise: NoiseSource) -> object:
        held = np.concatenate([copies, *(canary[None] for canary in canaries())])
        count = copied_patients([held], some, GateRules())
        return recorder.gaussian(np.array([float(count)]), 1.0, NOISE)

    return [
        matched_target("spectral, radii fixed: three adaptive sums", stage("spectral", dict, plan)),
        matched_target("spectral, radii charged: six adaptive sums", stage("spectral", dict, plan_of("charged"))),
        *(
            matched_target(
                f"appearance, radii {radii}: adaptive sums", stage("appearance", dict, appearance_plan(radii))
            )
            for radii in ("fixed", "charged")
        ),
        matched_target("embedding: means of features", stage("embedding", spectral_arrays, plan)),
        matched_target("choice: histograms of three classifiers", stage("choice", lambda: classifiers, plan)),
        matched_target("utility: histogram", lambda some, r, n: score_histogram(plan, classifier, some, r)),
        matched_target("private gate: count of copied patients", gate),
        _k_average(),
        _local_gaussian(),
    ]


def _k_average() -> Target:
    """Two groups of five, one member of which is at the clip's edge, or on the other side of it."""
    k, radius = 5, 3.0

    def run(present: bool, recorder: NoiseRecorder, noise: NoiseSource) -> object:
        members = np.random.default_rng(0).normal(0, 1, (2, k, 32))
        members[0, 0] = np.eye(32)[0] * (1e3 if present else -1e3)
        return recorder.k_average(members, radius, NOISE)

    return Target("dp-k-average: means of groups, a member replaced", 1.0 / NOISE, run)


def _local_gaussian() -> Target:
    mechanism = LatentMechanism("l2", 4.0, 64, None, NOISE)

    def run(present: bool, recorder: NoiseRecorder, noise: NoiseSource) -> object:
        rows = np.random.default_rng(0).normal(0, 1, (8, 64))
        rows[0] = np.eye(64)[0] * (1e3 if present else -1e3)
        return mechanism.released(rows, recorder)

    return Target("dp-glow, cadp, tables: a record's latent, Gaussian", 1.0 / NOISE, run)


def sampled_targets() -> list[Target]:
    """DP-SGD: what the canary's clipped gradient is beside the noise, by each exact engine; and how often it comes."""
    return [*(_step(engine) for engine in ("bookkeeping", "vmap")), _sampling()]


def _stage(steps: int, rate: float) -> DpSgdStage:
    return DpSgdStage.model_construct(
        rounds=1, local_steps=steps, sampling_rate=rate, clipping_norm=0.5, noise_multiplier=1.1, images_per_patient=2
    )


class _Kept(NoiseRecorder):
    """A recorder that keeps every noised sum beside what it was."""

    def __init__(self, noise: NoiseSource) -> None:
        super().__init__(noise, "audit")
        self.residues: list[Floats] = []

    def sampled_gaussian(
        self, value: Any, clipping_norm: float, noise_multiplier: float, sampling_rate: float
    ) -> Floats:
        out = super().sampled_gaussian(value, clipping_norm, noise_multiplier, sampling_rate)
        self.residues.append(out - value)
        return out


def _step(engine: str) -> Target:
    """The largest of the canaries' contributions over the noise's deviation: 1 / noise multiplier a step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.LeakyReLU(), nn.Flatten(), nn.Linear(4 * SIZE**2, 1))

    def loss(network: nn.Module, x: Tensor) -> Tensor:
        return nn.functional.softplus(-network(x)[:, 0])

    exact, stage = private_engine(model, loss, engine, ((1, SIZE, SIZE),)), _stage(20, 0.3)

    def contribution(canary: npt.NDArray[np.uint8]) -> float:
        images = torch.from_numpy(to_unit_range(np.stack([canary, canary])))
        parts = exact.clipped_sum([images], stage.clipping_norm, torch.full((1, 2), 0.5))
        return float(torch.cat([part.flatten() for part in parts]).double().norm())

    longest = max(map(contribution, canaries()))

    def measure(runs: int) -> tuple[float, float]:
        found = []
        for _ in range(max(1, runs // 100)):
            noise = SecureNoise()
            kept = _Kept(noise)
            sites = {SITE: SimpleNamespace(nominal_patients=PATIENTS)}
            job: Any = SimpleNamespace(plan=SimpleNamespace(sites=sites), site=SITE, stage=stage, recorder=kept)
            step, form = PrivateGradient(job, exact), (1, SIZE, SIZE)
            for batches in patient_batches(cohort(canaries()[0]), stage, PATIENTS, SecretStream(noise), form):
                step([((batch.images,), batch.weights) for batch in batches])
            found += kept.residues
        every = np.concatenate(found)
        count, deviation = len(every), float(np.sqrt((every**2).mean()))
        most = deviation * math.sqrt(count / float(chi2.ppf(1.0 - CONFIDENCE, count)))
        return longest / deviation, longest / most

    return Target(f"DP-SGD: a patient's gradient over the noise, engine {engine}", 1.0 / 1.1, measure=measure)


def _sampling(rate: float = 0.09) -> Target:
    """How often a given patient is in a batch."""

    def rated(actual: float) -> Callable[[int], tuple[float, float]]:
        def measure(runs: int) -> tuple[float, float]:
            steps = 40 * runs
            came, secret = 0, SecretStream(SecureNoise())
            for drawn in placed_samples(PATIENTS, _stage(steps, actual), 32, secret):
                came += sum(int((who == 7).sum()) for who, _ in drawn)
            return came / steps, float(beta.ppf(1.0 - CONFIDENCE, came, steps - came + 1))

        return measure

    weaker = Target("", rate, measure=rated(2.0 * rate))
    return Target("DP-SGD: how often a patient is sampled", rate, measure=rated(rate), weaker=weaker, figure="rate")


def local_targets() -> list[Target]:
    """One record's place is known: Laplace noise on a latent, and randomised response on a label."""
    mechanism = LatentMechanism("l1", 4.0, 16, 2.0, None)

    def laplace(present: bool) -> float:
        rows = np.zeros((1, 16))
        rows[0, 0] = 1e3 if present else -1e3
        return float(mechanism.released(rows, NoiseRecorder(SecureNoise(), "audit"))[0, 0])

    def answer(price: float) -> Callable[[bool], float]:
        def score(present: bool) -> float:
            label = np.array([int(present)])
            return float(NoiseRecorder(SecureNoise(), "audit").randomised_response(label, 3, price)[0] == 1)

        return score

    told = Target("", 0.0, score=answer(2.0))
    return [
        Target("dp-glow, cadp, tables: a record's latent, Laplace", 2.0, score=laplace, figure="epsilon"),
        Target("cadp, tables: a label by randomised response", 1.0, score=answer(1.0), weaker=told, figure="epsilon"),
    ]
