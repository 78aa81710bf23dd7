"""Utility at a stated epsilon: train on synthetic images, test on real patients that nobody trained on.

    python tests/bench/utility.py [--quick] [--cohort pneumonia,sites] [--rows real,flow] [--epsilon 1,10,inf]
    python tests/bench/utility.py --table [FILE ...]

Each job federates three sites in process, each with its own secure noise, at exactly the epsilon of its column (delta
1e-5, add/remove of a patient, the whole of a row's stages together), draws a synthetic set and scores it. Baselines in
the same run: real training images (TRTR), and each single site's own real images. Nothing is tuned on test patients.
Prints a table a cohort, and the targets; writes bench-out/utility.json and bench-out/utility-COHORT.json after every
job, and the tables as bench-out/utility.md. `--table` prints and writes those of results that are there, without
running anything. A job that fails is 'failed' in its cell; the others run on, and the exit code is 1 at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import shlex
import sys
import time
import traceback
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cohorts import COHORTS, ROOT, USUAL, load, pooled
from in_process import DELTA, ROWS, available, build_plan, federate, homes_of, released_model, spent, synthetic_set
from judge_scores import BENCH, judged
from utility_report import FAILED, markdown, print_tables, summary, tables_of
from utility_scores import held_out_bits, scores_of
from utility_targets import ONLY, REAL

from sfumato_common.files import write_atomic, write_json
from sfumato_common.metrics.judges import JUDGES

OUT = ROOT / "bench-out"
# 60 fundi cannot tell models apart: they show that colour works
LEFT_OUT = {("fundus", "best")}
RESULTS = "utility.json"
JUDGED_AT = {None, 1.0, 10.0}


@dataclass(frozen=True)
class Job:
    """One cell and seed of the table; `epsilon` is None for real images."""

    cohort: str
    row: str
    epsilon: float | None
    seed: int
    count: int
    order: int = 0
    judges: tuple[str, ...] = ()


def run_job(job: Job) -> dict[str, Any]:
    """Scores of one job, which model it released, its epsilon as accounted and its seconds."""
    began = time.perf_counter()
    cohort = load(job.cohort)
    model, accounted, seconds = "", None, {}
    if job.epsilon is None:
        one_site = job.row.removeprefix(ONLY)
        parts = cohort.train if job.row == REAL[0] else {one_site: cohort.train[one_site]}
        images, labels, _ = pooled(parts)
        homes = np.repeat(list(parts), [len(part.labels) for part in parts.values()])
        scores = scores_of(cohort, images, labels, job.seed, job.count)
    else:
        plan = build_plan(cohort, job.row, job.epsilon)
        released, seconds = federate(plan, cohort.train, job.seed)
        model = released_model(plan, ROWS[job.row].model, released)
        images, labels = synthetic_set(plan, model, released, job.count, job.seed)
        homes = homes_of(plan, released, job.count, job.seed)
        scores, accounted = scores_of(cohort, images, labels, job.seed, job.count), spent(plan)
        if model in {"spectral", "flow"}:
            scores["bits"] = held_out_bits(plan, model, released[model], cohort)
    if job.judges:
        scores |= judged(cohort, images, labels, homes, job.seed, (BENCH, *job.judges))
    total = round(time.perf_counter() - began, 1)
    measured = {"model": model, "accounted": accounted, "stage_seconds": seconds, "seconds": total}
    return {**asdict(job), **measured, "scores": scores}


def failure(job: Job, error: BaseException) -> dict[str, Any]:
    """The result of a job that `error` ended; its traceback goes to stderr."""
    print(f"failed: {job}", file=sys.stderr)
    traceback.print_exception(error)
    sys.stderr.flush()
    return {**asdict(job), "seconds": 0.0, "scores": {}, FAILED: traceback.format_exception_only(error)[-1].strip()}


def as_json(result: dict[str, Any]) -> dict[str, Any]:
    """A result without infinities, which JSON does not have."""
    return {name: "inf" if value == math.inf else value for name, value in result.items()}


def read_run(path: Path) -> dict[str, Any]:
    """What `write_run` wrote, infinities restored."""
    run: dict[str, Any] = json.loads(path.read_text())
    runs = [{name: math.inf if value == "inf" else value for name, value in one.items()} for one in run["runs"]]
    return {**run, "runs": runs}


def write_run(folder: Path, run: dict[str, Any], cohorts: list[str]) -> None:
    """The results so far, all of them and by cohort; a reader never sees half a file."""
    write_json(folder / RESULTS, {**run, "runs": list(map(as_json, run["runs"]))})
    for name in cohorts:
        own = [as_json(result) for result in run["runs"] if result["cohort"] == name]
        if own:
            write_json(folder / f"utility-{name}.json", {**run, "jobs": run["jobs_of"][name], "runs": own})


def jobs_of(options: argparse.Namespace) -> list[Job]:
    """Every job of the run, real images first within a cohort so that the reference is known early."""
    jobs = []
    for name in options.cohort:
        cohort = load(name)
        whole = [site for site, part in cohort.train.items() if len(set(part.labels)) == len(cohort.labels)]
        if REAL[0] in options.rows:
            jobs += [Job(name, REAL[0], None, seed, options.images) for seed in range(options.seeds)]
            jobs += [
                Job(name, ONLY + site, None, seed, options.images) for site in whole for seed in range(options.seeds)
            ]
        jobs += [
            Job(name, row, epsilon, seed, options.images)
            for row in options.rows
            if row in ROWS and (name, row) not in LEFT_OUT
            for epsilon in columns(options, name)
            for seed in range(options.seeds)
        ]
    return [replace(job, order=order, judges=judges(options, job)) for order, job in enumerate(jobs)]


def judges(options: argparse.Namespace, job: Job) -> tuple[str, ...]:
    """Ordinary judges where their bars stand, and of real images: at 64 px a job's take minutes."""
    return tuple(options.judges) if job.epsilon in JUDGED_AT else ()


def columns(options: argparse.Namespace, cohort: str) -> list[float]:
    """Epsilons of a cohort's columns."""
    if options.epsilon:
        return list(options.epsilon)
    if cohort in {"fundus", "phantom"}:
        return [10.0]
    if options.quick:
        return [1.0, 10.0]
    return [1.0, 3.0, 5.0, 10.0, math.inf] if cohort == "pneumonia" else [1.0, 3.0, 10.0, math.inf]


def run_all(jobs: list[Job], processes: int) -> Iterable[dict[str, Any]]:
    """Results as they come, from `processes` fresh processes of one thread each; a job that fails ends no other.

    A process that is killed (for its memory, say) takes the jobs that have not run with it: they fail at once.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=_one_thread) as workers:
        running = {workers.submit(run_job, job): job for job in jobs}
        for future in as_completed(running):
            error = future.exception()
            yield future.result() if error is None else failure(running[future], error)


def _one_thread() -> None:
    torch.set_num_threads(1)


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Utility of every released model at a stated epsilon")
    parser.add_argument("--quick", action="store_true", help="PneumoniaMNIST, one seed, epsilon 1 and 10, fewer images")
    parser.add_argument("--cohort", type=_list, help="of " + ",".join(COHORTS))
    parser.add_argument("--rows", type=_list, help="of real," + ",".join(ROWS))
    parser.add_argument("--epsilon", type=lambda text: [float(part) for part in text.split(",")], help="e.g. 1,10,inf")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--images", type=int, help="synthetic images a set")
    parser.add_argument("--judges", type=_list, help="of " + ",".join(JUDGES) + "; '' for none")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the results")
    parser.add_argument("--table", nargs="*", type=Path, metavar="FILE", help="only print the tables of results")
    options = parser.parse_args()
    options.cohort = options.cohort or (["pneumonia"] if options.quick else list(USUAL))
    options.rows = options.rows or [REAL[0], *(row for row in ROWS if available(row))]
    options.seeds = options.seeds or (1 if options.quick else 3)
    options.images = options.images or (1000 if options.quick else 2000)
    options.judges = list(JUDGES) if options.judges is None else [name for name in options.judges if name]
    if (
        unknown := (set(options.judges) - set(JUDGES))
        | (set(options.cohort) - set(COHORTS))
        | (set(options.rows) - {REAL[0], *ROWS})
    ):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return options


def show(folder: Path, runs: list[dict[str, Any]]) -> None:
    """Print the tables of runs, and write them as Markdown."""
    texts = []
    for run in runs:
        sheets = tables_of(run["runs"])
        print_tables(sheets)
        print(summary(run))
        texts.append(markdown(sheets, run))
    write_atomic(folder / "utility.md", "\n".join(texts))


def run_bench(options: argparse.Namespace) -> dict[str, Any]:
    """Run every job; what is there is on disk after each of them."""
    began, jobs, results = time.perf_counter(), jobs_of(options), []
    run = {
        "command": shlex.join(["python", "tests/bench/utility.py", *sys.argv[1:]]),
        "delta": DELTA,
        "images": options.images,
        "seeds": options.seeds,
        "jobs": len(jobs),
        "jobs_of": {name: sum(job.cohort == name for job in jobs) for name in options.cohort},
    }
    for result in run_all(jobs, options.processes):
        results.append(result)
        shown = result.get(FAILED) or {name: round(value, 3) for name, value in result["scores"].items()}
        print(
            f"{result['cohort']:9} {result['row']:10} eps {result['epsilon']} seed {result['seed']} "
            f"{result['seconds']:.0f} s {shown}",
            flush=True,
        )
        run |= {"seconds": round(time.perf_counter() - began), "runs": results}
        write_run(options.out, run, options.cohort)
    return run


def main() -> int:
    """Run the bench, or read what it wrote, and print its tables; 1 when a job failed."""
    options = parse_arguments()
    if options.table is not None:
        runs = [read_run(path) for path in options.table or [options.out / RESULTS]]
    else:
        runs = [run_bench(options)]
    show(options.out, runs)
    return int(any(FAILED in result for run in runs for result in run["runs"]))


if __name__ == "__main__":
    sys.exit(main())
