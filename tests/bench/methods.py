"""Every anonymisation method on one federated release: use, likeness, and attacks with their controls.

    python tests/bench/methods.py [--cohort phantom,sites] [--rows centroid,k-SALSA] [--epsilon 10] [--images 200]
    python tests/bench/methods.py --table

Models are trained three times a cohort (`--releases`) by all sites together (spectral release, generator, flow) at the
stated epsilon: a line is the mean over these releases, and its interval of use holds the chance of one. A
fifth of the training patients of every site is set aside first: no model and no method sees them, so that they are the
strangers whom members are told from; holdout test patients judge use. Records are inverted once; then every site runs
every method on its own patients, each row in a fresh process with one thread, two rows at a time, timed by its
processor's seconds. Prints a table a cohort and whether the relations that the papers claim were found; writes
bench-out/methods.json and methods.md, and contact sheets to bench-out/methods-sheets: they are made from records and
stay here.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from cohorts import ROOT, BenchCohort, pooled
from federation import DELTA
from methods_make import SPLIT_SEED, Task, counts_of, make, prepare, split
from methods_report import markdown, print_tables
from methods_rows import ROWS, K
from methods_scores import Made, scores_of, verifiers_of

from sfumato_common.files import write_atomic, write_json
from sfumato_common.metrics.judges import JUDGES

OUT = ROOT / "bench-out"
REAL, FEWER = "real", "real, as many"
WORKERS = 2

Result = dict[str, Any]


def run(options: argparse.Namespace, done: Callable[[Result], None]) -> None:
    """Every row of every cohort; each result is given to `done` as soon as it is there."""
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(WORKERS, mp_context=spawn, max_tasks_per_child=1) as pool,
    ):
        asked = [(name, release) for name in options.cohort for release in range(options.releases)]
        folders = {one: Path(folder) / f"{one[0]}-{one[1]}" for one in asked}
        ready = {one: pool.submit(prepare, one[0], options.epsilon, folders[one], one[1]) for one in asked}
        for (name, release), prepared in ready.items():
            facts = {**prepared.result(), "release": release}
            tasks = {
                pool.submit(make, Task(name, row, folders[name, release], options.images)): row for row in options.rows
            }
            cohort, outsiders = split(name)
            verifiers = verifiers_of(cohort)
            real = _real(cohort, options.images) if release == 0 else []
            for row, made, own in chain(real, _sets(tasks)):
                result = {"cohort": name, "row": row, **facts, **own}
                if made is not None:
                    result["scores"] = scores_of(cohort, outsiders, made, verifiers, tuple(options.judges))
                    result["images"] = len(made.images)
                done(result)


def _real(cohort: BenchCohort, most: int) -> Iterator[tuple[str, Made, Result]]:
    """(row, set, facts) of the real images, all and as many as a method makes: the same for every release."""
    images, labels, _ = pooled(cohort.train)
    sites = np.repeat(np.arange(len(cohort.train)), [len(part.labels) for part in cohort.train.values()])
    rng = np.random.default_rng(SPLIT_SEED)
    fewer = np.concatenate(
        [
            rng.permutation(np.flatnonzero(sites == number))[:count]
            for number, count in enumerate(counts_of(cohort, K, most).values())
        ]
    )
    for name, rows in ((REAL, np.arange(len(images))), (FEWER, fewer)):
        yield name, Made(images[rows], labels[rows], sites[rows], {}), {"word": "-"}


def _sets(tasks: dict[Future[Result], str]) -> Iterator[tuple[str, Made | None, Result]]:
    """(row, set or None, facts) of every row as it comes; a row that fails ends no other."""
    for future in as_completed(tasks):
        try:
            facts = future.result()
        except Exception as error:
            traceback.print_exception(error)
            yield tasks[future], None, {"failed": f"{type(error).__name__}: {error}"}
            continue
        yield tasks[future], facts.pop("made"), facts


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Every anonymisation method on one federated release")
    parser.add_argument("--cohort", type=lambda text: text.split(","), default=["phantom", "sites"])
    parser.add_argument("--rows", type=lambda text: text.split(","), default=[row.name for row in ROWS])
    parser.add_argument("--epsilon", type=float, default=10.0, help="what the models may cost a training patient")
    parser.add_argument("--images", type=int, default=200, help="the most images of one site")
    parser.add_argument("--releases", type=int, default=3, help="how often the models are trained, with new noise")
    parser.add_argument("--judges", type=lambda text: [name for name in text.split(",") if name], default=list(JUDGES))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--table", action="store_true", help="only print the tables of what is there")
    options = parser.parse_args()
    if unknown := (set(options.rows) - {row.name for row in ROWS}) | (set(options.judges) - set(JUDGES)):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return options


def main() -> int:
    """Run the bench, or read what it wrote, and print its tables; 1 when a row failed."""
    options = parse_arguments()
    path = options.out / "methods.json"
    if options.table:
        found = json.loads(path.read_text())
    else:
        found = {"command": shlex.join(["python", "tests/bench/methods.py", *sys.argv[1:]]), "delta": DELTA, "runs": []}
        began = time.perf_counter()

        def done(result: Result) -> None:
            found["runs"].append(result)
            found["seconds"] = round(time.perf_counter() - began)
            write_json(path, found)
            print(result["cohort"], result["row"], result.get("failed") or result["scores"], flush=True)

        run(options, done)
    print_tables(found)
    write_atomic(options.out / "methods.md", markdown(found))
    return int(any("failed" in result for result in found["runs"]))


if __name__ == "__main__":
    sys.exit(main())
