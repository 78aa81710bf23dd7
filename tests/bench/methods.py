"""Every anonymisation method on one federated release: use, likeness, and attacks with their controls.

    python tests/bench/methods.py [--cohort sites,phantom] [--rows centroid,k-SALSA] [--epsilon 10] [--images 300]
    python tests/bench/methods.py --table

Models are trained once a cohort by all sites together (spectral release, generator, flow) at the stated epsilon. A
fifth of the training patients of every site is set aside first: no model and no method sees them, so that they are the
strangers whom members are told from; held-out test patients judge use. Then every site runs every method on its own
patients, each in a fresh process, one after the other. Prints a table a cohort and whether the relations that the
papers claim were found; writes bench-out/methods.json and methods.md, and contact sheets to bench-out/methods-sheets:
they are made from records and stay here.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cohorts import ROOT, BenchCohort, load, pooled
from federation import DELTA, Released, Row, build_plan, federate, spent
from methods_report import markdown, print_tables
from methods_rows import ROWS, K, row_of
from methods_scores import Made, scores_of, verifiers_of

from sfumato_client.anonymise import Job, anonymise
from sfumato_client.dataset.cohort import Cohort
from sfumato_common.config.plan import Plan
from sfumato_common.files import write_atomic, write_json
from sfumato_common.privacy.generator import secret_generator
from sfumato_common.privacy.noise import SecureNoise
from sfumato_common.privacy.record_meter import RecordMeter

OUT = ROOT / "bench-out"
SET_ASIDE, SPLIT_SEED = 0.2, 11
SHARES = Row({"spectral": 0.6, "gan": 0.2, "flow": 0.2}, "flow")
REAL, FEWER = "real", "real, as many"


@dataclass(frozen=True)
class Task:
    """One row of one cohort, with what its process needs; `released` names a file of all released arrays."""

    cohort: str
    row: str
    plan: str
    released: str
    images: int


def split(cohort: BenchCohort) -> tuple[BenchCohort, dict[str, Cohort]]:
    """The cohort with a fifth of each site's training patients taken out, and those."""
    kept, aside = {}, {}
    rng = np.random.default_rng(SPLIT_SEED)
    for site, part in cohort.train.items():
        out = np.isin(part.patient_index, rng.permutation(part.patients)[: int(SET_ASIDE * part.patients)])
        kept[site], aside[site] = _some(part, ~out), _some(part, out)
    return replace(cohort, parts={**cohort.parts, "train": kept}), aside


def _some(cohort: Cohort, rows: np.ndarray) -> Cohort:
    images, labels, owners = cohort.everything()
    return Cohort(images[rows], labels[rows], np.unique(owners[rows], return_inverse=True)[1])


def counts_of(cohort: BenchCohort, k: int, most: int) -> dict[str, int]:
    """Images by site: four fifths of the groups that k gives, because labels leave remainders; at most `most`."""
    return {site: max(1, min(most, int(0.8 * part.patients / k))) for site, part in cohort.train.items()}


def make(task: Task) -> dict[str, Any]:
    """The set of one row at all sites, its seconds and the memory that this process grew by."""
    torch.set_num_threads(1)
    cohort, plan = split(load(task.cohort))[0], Plan.model_validate_json(task.plan)
    released = _read(Path(task.released))
    item, k = row_of(task.row).item, max(K, row_of(task.row).item.get("k", K))
    counts = counts_of(cohort, k, task.images)
    asked = plan.model_copy(update={"release": [{**item, "images": 1, "images_at": counts}]})
    plan = Plan.model_validate(asked.model_dump(mode="json", warnings=False))
    before, began = _peak(), time.perf_counter()
    parts, groups = [], {}
    for site, part in cohort.train.items():
        noise, local = SecureNoise(), OUT / "methods-sheets" / task.cohort / task.row / site
        (own,) = plan.release_at(site, "")
        job = Job(plan, site, own, released, part, secret_generator(noise), RecordMeter(noise), local=local)
        parts.append(anonymise(job))
        groups[site] = _members(job)
    seconds = time.perf_counter() - began
    made = Made(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.repeat(np.arange(len(parts)), [len(part.images) for part in parts]),
        {site: found for site, found in groups.items() if found is not None},
    )
    return {"made": made, "word": parts[0].guarantee, "seconds": seconds, "peak_mib": _peak() - before}


def _members(job: Job) -> tuple[np.ndarray, np.ndarray] | None:
    """Patients in a group that made an image of this site, and which image; None for methods without groups."""
    groups = job.kept.get("chosen")
    if groups is None:
        return None
    patients = np.concatenate([group.members for group in groups])
    return patients, np.repeat(np.arange(len(groups)), [len(group.members) for group in groups])


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def _write(path: Path, released: Released) -> None:
    np.savez(path, **{f"{kind}:{name}": value for kind, own in released.items() for name, value in own.items()})


def _read(path: Path) -> Released:
    found: Released = {}
    with np.load(path) as file:
        for name in file.files:
            kind, _, inner = name.partition(":")
            found.setdefault(kind, {})[inner] = file[name]
    return found


def run_cohort(name: str, options: argparse.Namespace, done: Callable[[dict[str, Any]], None]) -> None:
    """Every row of a cohort; each result is given to `done` as soon as it is there."""
    cohort, outsiders = split(load(name))
    plan = build_plan(cohort, SHARES, options.epsilon)
    released, _ = federate(plan, cohort.train, 0)
    verifiers = verifiers_of(cohort)
    common = {"cohort": name, "epsilon": spent(plan)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "released.npz"
        _write(path, released)
        for row, made, facts in _sets(cohort, plan, path, options):
            result = {**common, "row": row, **facts}
            if made is not None:
                result["scores"] = scores_of(cohort, outsiders, made, verifiers, seed=0)
                result["images"] = len(made.images)
            done(result)


def _sets(cohort: BenchCohort, plan: Plan, path: Path, options: argparse.Namespace) -> Any:
    """(row, set or None, facts) of the real images and of every row; a row that fails ends no other."""
    images, labels, _ = pooled(cohort.train)
    sites = np.repeat(np.arange(len(cohort.train)), [len(part.labels) for part in cohort.train.values()])
    counts = counts_of(cohort, K, options.images)
    rng = np.random.default_rng(SPLIT_SEED)
    fewer = np.concatenate(
        [rng.permutation(np.flatnonzero(sites == number))[:count] for number, count in enumerate(counts.values())]
    )
    for name, rows in ((REAL, np.arange(len(images))), (FEWER, fewer)):
        yield name, Made(images[rows], labels[rows], sites[rows], {}), {"word": "-"}
    spawn = multiprocessing.get_context("spawn")
    for row in options.rows:
        task = Task(cohort.name, row, plan.model_dump_json(), str(path), options.images)
        with ProcessPoolExecutor(1, mp_context=spawn) as worker:
            try:
                facts = worker.submit(make, task).result()
            except Exception as error:
                traceback.print_exception(error)
                yield row, None, {"failed": f"{type(error).__name__}: {error}"}
                continue
        yield row, facts.pop("made"), facts


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Every anonymisation method on one federated release")
    parser.add_argument("--cohort", type=lambda text: text.split(","), default=["sites", "phantom"])
    parser.add_argument("--rows", type=lambda text: text.split(","), default=[row.name for row in ROWS])
    parser.add_argument("--epsilon", type=float, default=10.0, help="what the models may cost a training patient")
    parser.add_argument("--images", type=int, default=300, help="the most images of one site")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--table", action="store_true", help="only print the tables of what is there")
    options = parser.parse_args()
    if unknown := set(options.rows) - {row.name for row in ROWS}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return options


def main() -> int:
    """Run the bench, or read what it wrote, and print its tables; 1 when a row failed."""
    options = parse_arguments()
    path = options.out / "methods.json"
    if options.table:
        run = json.loads(path.read_text())
    else:
        run = {"command": shlex.join(["python", "tests/bench/methods.py", *sys.argv[1:]]), "delta": DELTA, "runs": []}
        began = time.perf_counter()

        def done(result: dict[str, Any]) -> None:
            run["runs"].append(result)
            run["seconds"] = round(time.perf_counter() - began)
            write_json(path, run)
            print(result["cohort"], result["row"], result.get("failed") or result["scores"], flush=True)

        for name in options.cohort:
            run_cohort(name, options, done)
    print_tables(run)
    write_atomic(options.out / "methods.md", markdown(run))
    return int(any("failed" in result for result in run["runs"]))


if __name__ == "__main__":
    sys.exit(main())
