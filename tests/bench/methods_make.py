"""What the methods bench makes in worker processes: a source's models and codes once, then one set a row."""

from __future__ import annotations

import math
import pickle
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cohorts import ROOT, BenchCohort, load
from in_process import Released, build_plan, spent
from methods_models import FEDERATED, models_of
from methods_rows import SPACES, K, row_of
from methods_scores import Made
from placed import anonymise_and_tell

from sfumato_client.anonymise import Job, Release
from sfumato_client.anonymise.given_net import net_of
from sfumato_client.anonymise.groups import Chosen
from sfumato_client.anonymise.identities import Identities, identities_of
from sfumato_client.anonymise.inversion import inverter_of, patient_labels, reconstruction_report
from sfumato_client.anonymise.patients import patients_of
from sfumato_client.anonymise.self_supervised import ContrastiveNet
from sfumato_client.dataset.cohort import Cohort
from sfumato_common.generators.components import components_of
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import Streams
from sfumato_common.study.plan import Plan
from sfumato_common.study.release import KSalsa

SHEETS = ROOT / "bench-out" / "methods-sheets"
SET_ASIDE, SPLIT_SEED = 0.2, 11
MOST_INVERTED = 100  # of a site's images set aside, for the error of their reconstructions
TILES = 8  # of a set, for the sheet of all rows
# one image a patient enters a group: of left eyes the mirrored one
VIEWS = {"fundi": "mirrored"}
_LEFT, _NETWORKS = "left.pickle", "networks.pickle"
# methods that compare images by networks of a site's own, and what those are
_COMPARING = {"k-salsa": ContrastiveNet, "plan-walk": Identities}


@dataclass(frozen=True)
class Task:
    """A source or a row of one release of one cohort; `folder` holds what `prepare` left there.

    At most `patients` of a site enter the methods, and make at most `images`; groups are of `distance`.
    """

    cohort: str
    release: int
    name: str
    folder: Path
    epsilon: float
    patients: int
    images: int
    distance: str
    given: Path | None = None
    sheets: bool = False


@lru_cache(maxsize=8)
def split(name: str) -> tuple[BenchCohort, dict[str, Cohort]]:
    """The cohort with a fifth of each site's training patients taken out, and those."""
    cohort = load(name)
    kept, aside = {}, {}
    rng = np.random.default_rng(SPLIT_SEED)
    for site, part in cohort.train.items():
        out = np.isin(part.patient_index, rng.permutation(part.patients)[: int(SET_ASIDE * part.patients)])
        kept[site], aside[site] = some_of(part, ~out), some_of(part, out)
    return replace(cohort, parts={**cohort.parts, "train": kept}), aside


@lru_cache(maxsize=8)
def entering(name: str, most: int) -> BenchCohort:
    """The cohort with at most so many of each site's kept patients, drawn once: those whose records methods turn to.

    Models are trained on all that are kept.
    """
    cohort = split(name)[0]
    rng, few = np.random.default_rng(SPLIT_SEED), {}
    for site, part in cohort.train.items():
        few[site] = some_of(part, np.isin(part.patient_index, rng.permutation(part.patients)[:most]))
    return replace(cohort, parts={**cohort.parts, "train": few})


@lru_cache(maxsize=8)
def strangers(name: str, most: int) -> dict[str, Cohort]:
    """Patients set aside, of each site as many for every one who enters: a site must not tell members apart."""
    few, rng = math.floor(most * SET_ASIDE / (1.0 - SET_ASIDE)), np.random.default_rng(SPLIT_SEED)
    return {
        site: some_of(part, np.isin(part.patient_index, rng.permutation(part.patients)[: max(1, few)]))
        for site, part in split(name)[1].items()
    }


def some_of(cohort: Cohort, rows: np.ndarray) -> Cohort:
    """The images where `rows` [N] is true, their patients counted anew."""
    images, labels, patient_index = cohort.everything()
    views = None if cohort.views is None else cohort.views[rows]
    return Cohort(images[rows], labels[rows], np.unique(patient_index[rows], return_inverse=True)[1], views=views)


def counts_of(cohort: BenchCohort, k: int, most: int) -> dict[str, int]:
    """Images by site: four fifths of the groups that k gives, because labels leave remainders; at most `most`."""
    return {site: max(1, min(most, int(0.8 * part.patients / k))) for site, part in cohort.train.items()}


def prepare(task: Task) -> dict[str, Any]:
    """A source's models and, where it has a latent space, the codes that its rows start from; left in `folder`.

    Gives what was paid, what inversion cost, and how near it comes to the patients set aside, whom nothing has seen.
    """
    cohort, aside = split(task.cohort)
    plan, released = models_of(cohort, task.name, task.epsilon, task.release, task.given)
    kept: dict[str, Any] = {}
    facts: dict[str, Any] = {"epsilon": spent(plan) if plan.private else None}
    if task.name in SPACES:
        kept, facts["inversion"] = _inverted(task, _asking(task, plan, task.name), released, aside)
    task.folder.mkdir(parents=True)
    (task.folder / _LEFT).write_bytes(pickle.dumps((plan, released, kept, facts)))
    return facts


def learn_to_compare(task: Task) -> None:
    """The networks by which each site compares images, the same in every latent space; left in the folder above."""
    cohort, (row, terms) = split(task.cohort)[0], FEDERATED["appearance"]
    plan, networks = build_plan(cohort, row, task.epsilon, **terms), {}
    items = [{"method": method, "k": K, "model": "appearance", "images": 1, **_grouped(task)} for method in _COMPARING]
    for site, part in entering(task.cohort, task.patients).train.items():
        shared: dict[Any, Any] = {}
        for item in items:
            asked = plan.model_copy(update={"release": [item]}).model_dump(mode="json", warnings=False)
            job = _job(Plan.model_validate(asked), site, {}, part, shared)
            if isinstance(job.item, KSalsa):
                net_of(job)
            else:
                identities_of(job, job.item.classifier_steps)
        networks[site] = {key: own for key, own in shared.items() if isinstance(own, tuple(_COMPARING.values()))}
    _networks_at(task).write_bytes(pickle.dumps(networks))


def _networks_at(task: Task) -> Path:
    return task.folder.parent / f"{task.cohort}-{task.release}-{_NETWORKS}"


@lru_cache(maxsize=2)
def _networks(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = pickle.loads(path.read_bytes())
    return found


def _asking(task: Task, plan: Plan, space: str) -> Plan:
    """The plan with one item of a group a site, whose codes all of the space's items share."""
    item = {"method": "k-same", "k": K, "model": space, "images": 1, **SPACES[space], **_grouped(task)}
    return Plan.model_validate(plan.model_copy(update={"release": [item]}).model_dump(mode="json", warnings=False))


def _grouped(task: Task) -> dict[str, str]:
    return {"distance": task.distance, "views": VIEWS.get(split(task.cohort)[0].name, "apart")}


def _inverted(
    task: Task, plan: Plan, released: Released, aside: dict[str, Cohort]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the release of each site shares once its patients have codes; and time and errors of the inversion."""
    kept, errors, seconds, count = {}, {}, 0.0, 0
    for site, part in entering(task.cohort, task.patients).train.items():
        job = _job(plan, site, released, part)
        began = time.process_time()
        patients_of(job)
        seconds, count = seconds + time.process_time() - began, count + part.patients
        kept[site] = dict(job.release.shared)
        labels = patient_labels(aside[site], len(plan.labels))
        images, _, patient_index = aside[site].everything()
        components = components_of(plan, site, torch.from_numpy(labels[patient_index[:MOST_INVERTED]]))
        report = reconstruction_report(inverter_of(job), images[:MOST_INVERTED], components)
        errors[site] = {step: [found.rmse, found.correlation] for step, found in report.items()}
    return kept, {"seconds": seconds, "images": count, "errors": errors}


@lru_cache(maxsize=2)
def _left(folder: Path) -> tuple[Plan, Released, dict[str, Any], dict[str, Any]]:
    found: tuple[Plan, Released, dict[str, Any], dict[str, Any]] = pickle.loads((folder / _LEFT).read_bytes())
    return found


def make(task: Task) -> dict[str, Any]:
    """The set of one row at all sites, its word, processor seconds, and what its models cost."""
    cohort, row = entering(task.cohort, task.patients), row_of(task.name)
    plan, released, kept, facts = _left(task.folder)
    counts = counts_of(cohort, max(K, row.item.get("k", K)), task.images)
    item = {**row.item, **(_grouped(task) if "k" in row.item and row.item["method"] != "dp-k-average" else {})}
    asked = plan.model_copy(update={"release": [{**item, "images": 1, "images_at": counts}]})
    plan = Plan.model_validate(asked.model_dump(mode="json", warnings=False))
    began, parts, groups, records = time.process_time(), [], {}, {}
    for site, part in cohort.train.items():
        local = SHEETS / task.cohort / task.name / site if task.sheets else None
        networks = _networks(_networks_at(task))[site] if row.slow else {}
        job = _job(plan, site, released, part, {**kept.get(site, {}), **networks}, local)
        part_made, whose = anonymise_and_tell(job)
        parts.append(part_made)
        if (found := _members(job)) is not None:
            groups[site] = found
        if whose is not None:
            images = np.flatnonzero(whose >= 0)
            records[site] = whose[images], images
    seconds = time.process_time() - began
    made = Made(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.repeat(np.arange(len(parts)), [len(part.images) for part in parts]),
        groups,
        records,
    )
    return {"made": made, "word": parts[0].guarantee, "seconds": seconds, **facts}


def _job(
    plan: Plan,
    site: str,
    released: Released,
    cohort: Cohort,
    kept: dict[Any, Any] | None = None,
    local: Path | None = None,
) -> Job[Any]:
    noise = SecureNoise()
    (own,) = plan.release_at(site, "")
    streams, recorder = Streams.of(noise), NoiseRecorder(noise, "entry")
    return Job(Release(plan, site, released, cohort, steward_folder=local, shared=kept or {}), own, streams, recorder)


def _members(job: Job[Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """Patients in a group that made an image of this site, and which image; None for methods without groups."""
    found = job.release.shared.get((Chosen, (type(job.item), job.item.model)))
    if not isinstance(found, Chosen):
        return None
    groups = found.groups
    patients = np.concatenate([group.members for group in groups])
    return patients, np.repeat(np.arange(len(groups)), [len(group.members) for group in groups])
