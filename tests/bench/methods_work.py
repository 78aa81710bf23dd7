"""The methods bench's work in processes: what waits for what, what goes first, and when it ends."""

from __future__ import annotations

import argparse
import os
import pickle
import queue
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cohorts import DRAWN, SPLITS, BenchCohort, drawn_fundi, pooled
from methods_make import SPLIT_SEED, TILES, Task, counts_of, entering, learn_to_compare, make, prepare, strangers
from methods_models import GIVEN, given
from methods_rows import ROWS, K
from methods_scores import Judge, Made, judge_of, scores_of

from sfumato_common.memory import VARIABLE, free_bytes

REAL, FEWER = "real", "real, as many"
CAMERAS = {"garnet": "dawn", "opal": "ember", "pearl": "flint"}
JUDGE = "judge.pickle"

Result = dict[str, Any]
Work = Callable[..., Any]


@dataclass
class Step:
    """One call in a worker: when, after which steps, and what of it is told."""

    key: tuple[Any, ...]
    order: tuple[Any, ...]
    work: Work
    arguments: tuple[Any, ...]
    after: list[tuple[Any, ...]] = field(default_factory=list)


class Schedule:
    """All steps: cohorts are drawn, judges learn, models are trained, rows made; first releases of all cohorts first.

    Of what can be done, what takes long goes first.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.steps: dict[tuple[Any, ...], Step] = {}
        self.missing: list[str] = []
        for place, cohort in enumerate(options.cohort):
            drawn = self._drawing(cohort, place)
            judge = self._add(("judge", cohort), (0, place, 0), learn, (cohort, options.patients, folder), drawn)
            real = (cohort, options.patients, options.images, folder, tuple(options.judges))
            self._add(("real", cohort), (0, place, 3), judge_real, real, [judge])
            for release in range(options.releases):
                self._release(cohort, place, release, drawn, judge)

    def _release(self, cohort: str, place: int, release: int, drawn: list[Any], judge: Any) -> None:
        options, sources = self.options, {}
        for row in ROWS:
            if row.name not in options.rows or (options.space and row.space not in options.space):
                continue
            path = given(options.models, cohort, row.source, release)
            if row.source in GIVEN and path is None:
                self.missing.append(f"{cohort}, {row.name}: no model")
                continue
            own = self.folder / f"{cohort}-{release}-{row.source}"
            most = options.slow_images if row.slow else options.images
            terms = (own, options.epsilon, options.patients, most, options.distance, path)
            first = Task(cohort, release, row.source, *terms)
            if row.source not in sources:
                key, order = ("source", cohort, release, row.source), (release, place, 1)
                sources[row.source] = self._add(key, order, prepare, (first,), drawn)
            task = Task(cohort, release, row.name, *terms, sheets=options.sheets and release == 0)
            order = (release, place, 2 if row.slow else 3)
            work, after = (task, self.folder, tuple(options.judges)), [judge, sources[row.source]]
            if row.slow:
                key = ("networks", cohort, release)
                after.append(
                    key if key in self.steps else self._add(key, (release, place, 1), learn_to_compare, (first,), drawn)
                )
            self._add(("row", cohort, release, row.name), order, judge_row, work, after)

    def _drawing(self, cohort: str, place: int) -> list[Any]:
        kind, _, size = cohort.partition("-")
        if kind != "fundi":
            return []
        parts = [(int(size), site, camera, part) for site, camera in CAMERAS.items() for part in SPLITS]
        return [self._add(("draw", *part), (0, place, 0), drawn_fundi, part, []) for part in parts]

    def _add(self, key: Any, order: Any, work: Work, arguments: Any, after: list[Any]) -> Any:
        self.steps[key] = Step(key, order, work, arguments, list(after))
        return key


def run(schedule: Schedule, done: Callable[[Result], None]) -> list[str]:
    """Every row; each result is given to `done` as soon as it is there. Gives the rows that were not run, and why."""
    options, waiting, missing = schedule.options, dict(schedule.steps), list(schedule.missing)
    ends = time.perf_counter() + options.seconds
    os.environ.setdefault(VARIABLE, str(free_bytes() // (3 * options.workers)))
    told: queue.Queue[tuple[Any, Any, float]] = queue.Queue()
    finished: set[Any] = set()
    running = 0
    DRAWN.mkdir(parents=True, exist_ok=True)
    with get_context("spawn").Pool(options.workers, _alone) as pool:  # whose end terminates what still runs
        while waiting or running:
            ready = [step for step in waiting.values() if finished.issuperset(step.after)]
            for step in sorted(ready, key=lambda step: step.order)[: options.workers - running]:
                del waiting[step.key]
                pool.apply_async(_caught, (step.key, step.work, step.arguments), callback=told.put)
                running += 1
            try:
                key, (results, failed), cost = told.get(timeout=max(0.0, ends - time.perf_counter()))
            except queue.Empty:
                return missing + [
                    f"{name[1]}, release {name[2]}, {name[3]}: no time" for name in _rows(schedule, finished)
                ]
            running -= 1
            finished.add(key)
            print(f"{cost:6.1f} s", *key, failed, flush=True)
            if failed and key[0] == "row":
                results = [{"cohort": key[1], "release": key[2], "row": key[3], "failed": failed}]
            for result in results if key[0] in {"row", "real"} else []:
                done(result)
            for step in _behind(key, waiting) if failed else []:
                del waiting[step.key]
                finished.add(step.key)
                if step.key[0] == "row":
                    done({"cohort": step.key[1], "release": step.key[2], "row": step.key[3], "failed": failed})
    return missing


def _behind(key: Any, waiting: dict[Any, Step]) -> list[Step]:
    """What cannot be done without the step `key`."""
    lost = {key}
    for _ in range(2):  # draws, then judges and sources, then rows
        lost |= {step.key for step in waiting.values() if lost.intersection(step.after)}
    return [waiting[name] for name in lost if name in waiting]


def _rows(schedule: Schedule, finished: set[Any]) -> list[Any]:
    return [key for key in schedule.steps if key[0] == "row" and key not in finished]


def _alone() -> None:
    torch.set_num_threads(1)


def _caught(key: Any, work: Work, arguments: Any) -> tuple[Any, Any, float]:
    """The results of a step, why it failed, where it did, and processor seconds: a row that fails ends no other."""
    began = time.process_time()
    try:
        found = work(*arguments), ""
    except Exception as error:
        traceback.print_exception(error)
        found = [], f"{type(error).__name__}: {error}"
    return key, found, time.process_time() - began


def learn(cohort: str, patients: int, folder: Path) -> None:
    """The judge of a cohort, left in the folder."""
    (folder / f"{cohort}-{JUDGE}").write_bytes(pickle.dumps(judge_of(entering(cohort, patients))))


@lru_cache(maxsize=8)
def _judge(path: Path) -> Judge:
    found = pickle.loads(path.read_bytes())
    assert isinstance(found, Judge), "what `learn` left"
    return found


def judge_row(task: Task, folder: Path, judges: tuple[str, ...]) -> list[Result]:
    """One row made and judged."""
    facts = make(task)
    made: Made = facts.pop("made")
    cohort, judge = entering(task.cohort, task.patients), _judge(folder / f"{task.cohort}-{JUDGE}")
    began = time.process_time()
    scores = scores_of(cohort, strangers(task.cohort, task.patients), made, judge, judges)
    names = {"cohort": task.cohort, "release": task.release, "row": task.name}
    strip = {"strip": _strip(made)} if task.release == 0 else {}
    cost = {"images": len(made.images), "judging": time.process_time() - began}
    return [{**names, **facts, **cost, "scores": scores, **strip}]


def _strip(made: Made) -> Any:
    """The first images of every site in turn, side by side."""
    some = [np.flatnonzero(made.sites == site) for site in np.unique(made.sites)]
    rows = [int(own[turn]) for turn in range(TILES) for own in some if turn < len(own)][:TILES]
    return np.concatenate(list(made.images[rows]), axis=1)


def judge_real(cohort: str, patients: int, images: int, folder: Path, judges: tuple[str, ...]) -> list[Result]:
    """Real images, all and as many as a method makes: the same for every release."""
    found, results = entering(cohort, patients), []
    for name, made in _real(found, images):
        scores = scores_of(found, strangers(cohort, patients), made, _judge(folder / f"{cohort}-{JUDGE}"), judges)
        names = {"cohort": cohort, "release": 0, "row": name, "word": "-"}
        results.append({**names, "images": len(made.images), "scores": scores, "strip": _strip(made)})
    return results


def _real(cohort: BenchCohort, most: int) -> list[tuple[str, Made]]:
    images, labels, _ = pooled(cohort.train)
    sites = np.repeat(np.arange(len(cohort.train)), [len(part.labels) for part in cohort.train.values()])
    rng, fewer = np.random.default_rng(SPLIT_SEED), []
    for number, count in enumerate(counts_of(cohort, K, most).values()):
        fewer.append(rng.permutation(np.flatnonzero(sites == number))[:count])
    chosen = {REAL: np.arange(len(images)), FEWER: np.concatenate(fewer)}
    return [(name, Made(images[rows], labels[rows], sites[rows], {})) for name, rows in chosen.items()]
