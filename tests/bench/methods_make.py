"""What the methods bench makes, in worker processes: a cohort's models and inverted codes once, then one set a row."""

from __future__ import annotations

import pickle
import resource
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cohorts import ROOT, BenchCohort, load
from federation import Released, build_plan, federate, spent
from federation import Row as FederatedRow
from methods_rows import K, row_of
from methods_scores import Made
from placed import anonymise_and_tell

from sfumato_client.anonymise import Job, Release
from sfumato_client.anonymise.groups import Chosen
from sfumato_client.anonymise.inversion import inverter_of, patient_labels, reconstruction_report
from sfumato_client.anonymise.patients import patients_of
from sfumato_client.dataset.cohort import Cohort
from sfumato_common.generators.components import components_of
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import Streams
from sfumato_common.study.plan import Plan
from sfumato_common.study.release import KSame

SHEETS = ROOT / "bench-out" / "methods-sheets"
SET_ASIDE, SPLIT_SEED = 0.2, 11
MOST_INVERTED = 200  # of a site's images set aside, for the error of their reconstructions
SHARES = FederatedRow({"spectral": 0.6, "gan": 0.2, "flow": 0.2}, "flow")
_RELEASED, _KEPT = "released.npz", "kept.pickle"


@dataclass(frozen=True)
class Task:
    """One row of one cohort; `folder` holds what `prepare` left there."""

    cohort: str
    row: str
    folder: Path
    images: int


@lru_cache(maxsize=2)
def split(name: str) -> tuple[BenchCohort, dict[str, Cohort]]:
    """The cohort with a fifth of each site's training patients taken out, and those."""
    cohort = load(name)
    kept, aside = {}, {}
    rng = np.random.default_rng(SPLIT_SEED)
    for site, part in cohort.train.items():
        out = np.isin(part.patient_index, rng.permutation(part.patients)[: int(SET_ASIDE * part.patients)])
        kept[site], aside[site] = _some(part, ~out), _some(part, out)
    return replace(cohort, parts={**cohort.parts, "train": kept}), aside


def _some(cohort: Cohort, rows: np.ndarray) -> Cohort:
    images, labels, patient_index = cohort.everything()
    return Cohort(images[rows], labels[rows], np.unique(patient_index[rows], return_inverse=True)[1])


def counts_of(cohort: BenchCohort, k: int, most: int) -> dict[str, int]:
    """Images by site: four fifths of the groups that k gives, because labels leave remainders; at most `most`."""
    return {site: max(1, min(most, int(0.8 * part.patients / k))) for site, part in cohort.train.items()}


def prepare(name: str, epsilon: float, folder: Path, release: int) -> dict[str, Any]:
    """Federated models at `epsilon`, and every site's codes, which the rows in W space start from; left in `folder`.

    Gives what was paid, what inversion cost, and how near it comes to the patients set aside, whom nothing has seen.
    """
    torch.set_num_threads(1)
    cohort, aside = split(name)
    plan = build_plan(cohort, SHARES, epsilon)
    released, _ = federate(plan, cohort.train, release)
    folder.mkdir()
    np.savez(
        folder / _RELEASED, **{f"{kind}:{key}": value for kind, own in released.items() for key, value in own.items()}
    )
    kept, errors = {}, {}
    plan = plan.model_copy(update={"release": [KSame(method="k-same", images=1)]})
    before, seconds = _peak(), 0.0
    for site, part in cohort.train.items():
        job = _job(plan, site, released, part)
        began = time.process_time()
        patients_of(job)
        seconds += time.process_time() - began
        kept[site] = dict(job.release.shared)
        labels = patient_labels(aside[site], len(plan.labels))
        images, _, patient_index = aside[site].everything()
        components = components_of(plan, site, torch.from_numpy(labels[patient_index[:MOST_INVERTED]]))
        report = reconstruction_report(inverter_of(job), images[:MOST_INVERTED], components)
        errors[site] = {step: [found.rmse, found.correlation] for step, found in report.items()}
    (folder / _KEPT).write_bytes(pickle.dumps((plan, kept)))
    count = sum(len(part.labels) for part in cohort.train.values())
    cost = {"seconds": seconds, "images": count, "peak_mib": _peak() - before, "errors": errors}
    return {"epsilon": spent(plan), "inversion": cost}


def make(task: Task) -> dict[str, Any]:
    """The set of one row at all sites, processor seconds, and the memory that this process grew by."""
    torch.set_num_threads(1)
    cohort = split(task.cohort)[0]
    released = _read(task.folder / _RELEASED)
    plan, kept = pickle.loads((task.folder / _KEPT).read_bytes())
    item, k = row_of(task.row).item, max(K, row_of(task.row).item.get("k", K))
    counts = counts_of(cohort, k, task.images)
    asked = plan.model_copy(update={"release": [{**item, "images": 1, "images_at": counts}]})
    plan = Plan.model_validate(asked.model_dump(mode="json", warnings=False))
    before, began = _peak(), time.process_time()
    parts, groups, records = [], {}, {}
    for site, part in cohort.train.items():
        job = _job(plan, site, released, part, kept[site], SHEETS / task.cohort / task.row / site)
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
    return {"made": made, "word": parts[0].guarantee, "seconds": seconds, "peak_mib": _peak() - before}


def _job(
    plan: Plan,
    site: str,
    released: Released,
    cohort: Cohort,
    kept: dict[str, Any] | None = None,
    local: Path | None = None,
) -> Job:
    noise = SecureNoise()
    (own,) = plan.release_at(site, "")
    streams, recorder = Streams.of(noise), NoiseRecorder(noise, "entry")
    return Job(Release(plan, site, released, cohort, steward_folder=local, shared=kept or {}), own, streams, recorder)


def _members(job: Job) -> tuple[np.ndarray, np.ndarray] | None:
    """Patients in a group that made an image of this site, and which image; None for methods without groups."""
    found = job.release.shared.get((Chosen, (type(job.item), job.item.model)))
    if not isinstance(found, Chosen):
        return None
    groups = found.groups
    patients = np.concatenate([group.members for group in groups])
    return patients, np.repeat(np.arange(len(groups)), [len(group.members) for group in groups])


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def _read(path: Path) -> Released:
    found: Released = {}
    with np.load(path) as file:
        for name in file.files:
            kind, _, inner = name.partition(":")
            found.setdefault(kind, {})[inner] = file[name]
    return found
