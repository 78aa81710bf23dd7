"""Latent spaces of a bench's cohort: what each one's model released, and a site's jobs in it.

Releases are made at the stated epsilon, each site with secure noise of its own. The W space is that of a generator at
its start, which draws what the spectral release draws, with codes in closed form. A codec and a StyleGAN2 are given;
their moments are not fitted, because no average needs them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from cohorts import DATA, BenchCohort, sites
from in_process import Released, Row, build_plan, federate
from methods_models import as_released, terms_of
from safetensors.numpy import load_file

from sfumato_client.anonymise import Job, Release
from sfumato_client.dataset import Cohort
from sfumato_common.codec.folder import read_codec, weights_of
from sfumato_common.generators import GENERATORS
from sfumato_common.generators.starts import initial_model
from sfumato_common.generators.weights import to_arrays
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import Streams
from sfumato_common.study.plan import Plan
from sfumato_common.types import Arrays

SEED = 3
SPECTRAL = Row({"spectral": 1.0}, "spectral")
CODEC = Row({"codec": 1.0}, "codec")
STYLEGAN2 = Row({"spectral": 0.6, "stylegan2": 0.4}, "stylegan2")
W = Row({"spectral": 0.6, "gan": 0.4}, "gan")


@dataclass(frozen=True)
class Models:
    """Terms of the releases: epsilon, the appearance release's detail and pool, and where given models are.

    `codec` is a folder as `sfumato model pretrain codec` writes it, of the cohort's size; `stylegan2` are weights as
    `make bench NAME=stylegan2` leaves them, trained without privacy.
    """

    epsilon: float = 10.0
    detail: str = "phantom"
    phantoms: int | None = None
    codec: Path | None = None
    stylegan2: Path | None = None

    @property
    def spaces(self) -> tuple[str, ...]:
        """The spaces whose models are there."""
        return ("appearance", "gan", *(name for name in ("codec", "stylegan2") if getattr(self, name)))


def cohort_of(name: str, most: int) -> BenchCohort:
    """Three sites of chest films, at most so many patients each; or all fundi as one site's training patients."""
    kind, _, size = name.partition("-")
    if kind == "sites":
        found = sites(int(size))
        return replace(
            found, parts={**found.parts, "train": {s: _first(part, most) for s, part in found.train.items()}}
        )
    with np.load(DATA / f"fundus_open_{size}.npz") as file:
        patient_index = np.unique(file["patient_id"], return_inverse=True)[1]
        # labels are too few to be grouped within
        whole = Cohort(file["images"], np.zeros(len(patient_index), dtype=np.int64), patient_index)
    return BenchCohort("fundus", int(size), 3, ("any", "none"), {"eyes": 40}, {"train": {"eyes": whole}})


def _first(cohort: Cohort, most: int) -> Cohort:
    images, labels, patient_index = cohort.everything()
    rows = np.isin(patient_index, np.random.default_rng(SEED).permutation(cohort.patients)[:most])
    return Cohort(images[rows], labels[rows], np.unique(patient_index[rows], return_inverse=True)[1])


def released(cohort: BenchCohort, space: str, models: Models) -> tuple[Plan, Released]:
    """A plan whose model `space` has, and what it released."""
    if space == "appearance":
        terms = {"detail": models.detail, "phantoms": models.phantoms}
        if cohort.name == "fundus":
            terms["alignment"] = "fundus"
        plan = build_plan(cohort, "appearance", models.epsilon, appearance=terms)
        return plan, federate(plan, cohort.train, SEED)[0]
    if space == "codec":
        assert models.codec is not None, "a codec is given"
        codec, config = read_codec(models.codec)
        plan = build_plan(cohort, CODEC, models.epsilon, codec={"form": config.form.model_dump()})
        return plan, {space: {**_unfitted(plan, space), **weights_of(codec)}}
    if space == "stylegan2":
        assert models.stylegan2 is not None, "a StyleGAN2 is given"
        return _stylegan2(cohort, load_file(models.stylegan2))
    # a generator at its start costs no epsilon: all of it is the spectral release's
    (first,) = build_plan(cohort, SPECTRAL, models.epsilon, spectral={"bandwidth": 16}).stages
    plan = build_plan(cohort, W, math.inf, spectral=first.model_dump(exclude={"kind"}))
    generator = to_arrays("generator", initial_model("generator", plan))
    moments = federate(plan.model_copy(update={"stages": plan.stages[:1]}), cohort.train, SEED)[0]["spectral"]
    return plan, {"spectral": moments, "gan": {**moments, **generator}}


def _unfitted(plan: Plan, kind: str) -> Arrays:
    """Moments of no patient, in the form of those that are released."""
    return {name: np.ones(spec.shape, spec.dtype) for name, spec in GENERATORS[kind].released(plan).items()}


def _stylegan2(cohort: BenchCohort, weights: Mapping[str, Any]) -> tuple[Plan, Released]:
    plan = build_plan(cohort, STYLEGAN2, math.inf, stylegan2=terms_of(weights, cohort.size))
    moments, generator = _unfitted(plan, "spectral"), as_released(weights, len(cohort.labels), cohort.nominal)
    return plan, {"spectral": moments, "stylegan2": {**moments, **generator}}


def job_of(plan: Plan, site: str, models: Released, part: Cohort, **terms: Any) -> Job[Any]:
    """The job of one item with these terms at a site with these patients."""
    asked = plan.model_copy(update={"release": [terms]}).model_dump(mode="json", warnings=False)
    plan = Plan.model_validate(asked)
    noise = SecureNoise()
    (own,) = plan.release_at(site, "")
    return Job(Release(plan, site, models, part), own, Streams.of(noise), NoiseRecorder(noise, "bench"))
