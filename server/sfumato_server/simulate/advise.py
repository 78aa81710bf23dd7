"""`sfumato plan advise`: what quality to expect of a plan at which size, by simulated studies, kept as they end.

A figure is the AUC, on patients whom no site has, of a classifier that saw images of what the study would publish and
nothing else. Two anchors stand beside it: the same classifier on real images of as many patients as train, and the
plan's best model without noise and clipping.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sfumato_common.accounting.accountant import epsilon, json_epsilon
from sfumato_common.errors import DataError, FederationError
from sfumato_common.files import read_object, write_json
from sfumato_common.locks import exclusive
from sfumato_common.metrics.utility import auc, score, train_classifier
from sfumato_common.study.costs import study_events
from sfumato_common.study.plan import Plan
from sfumato_common.study.release import Sampling
from sfumato_common.types import AnyArray
from sfumato_server.simulate.advice import RULE, Size, guess_limit, sentences
from sfumato_server.simulate.cells import Asked, Cell, asked_cells, sizes_of
from sfumato_server.simulate.cohorts import PHANTOM, Source, fewer, patients_of, source_of
from sfumato_server.simulate.engines import Where, started
from sfumato_server.simulate.plans import real_plan
from sfumato_server.simulate.run import RUNS, Question, require_both_sides, require_own, run_folder, run_one
from sfumato_server.simulate.study import PUBLISHED, Simulation, Tell, judges_of
from sfumato_server.simulate.workers import Workers

ADVICE, FORMAT = "advice.json", "sfumato-advice/1"
_CELLS = "cells"
# real images are of so many patients at most: 600 steps of 64 images gain little from more
MOST_REAL = 4000
Judges = tuple[AnyArray, AnyArray]


@dataclass
class Grid:
    """Everything that is asked, and what of it is computed: each figure is kept below `out` when it is there.

    `workers` is how many there are, as far as is known before they are started: of a Ray cluster this machine's cores.
    """

    question: Question
    out: Path
    where: Where
    workers: int
    real: Plan
    source: Source
    asked: Asked
    stopped: dict[tuple[int, int], str] = field(default_factory=dict)

    def kept(self, cell: Cell) -> dict[str, Any]:
        """What was found, now or by an earlier run; empty where nothing was."""
        return read_object(self.out / _CELLS / f"{cell.key}.json")

    @property
    def missing(self) -> list[Cell]:
        """Cells that are still to be computed."""
        return [cell for cell in self.asked.cells if not self.kept(cell)]

    @property
    def left_s(self) -> float:
        """Seconds that what is missing takes, roughly: by those that ran with as many workers, where some did."""
        ran = [(cell.effort, self.kept(cell)) for cell in self.asked.cells]
        ran = [(effort, found) for effort, found in ran if found.get("workers") == self.workers]
        rate = sum(found["seconds_in_all"] for _, found in ran) / sum(effort for effort, _ in ran) if ran else 1.0
        return float(rate * sum(cell.effort for cell in self.missing))

    def run(self, tell: Tell, ended: Callable[[], None]) -> dict[str, Any]:
        """Compute what is missing; what stands in `advice.json` afterwards. `ended` is told of every cell."""
        judges = self.source.judges(self.real)
        with started(self.out, self.where) as pool:
            images, labels = judges_of(pool, self.real, judges)
            limit = _limit(labels, patients_of(judges))
            for cell in self.missing:
                self._compute(cell, pool, (images, labels), tell)
                write_json(self.out / ADVICE, self.report(limit))
                ended()
        report = self.report(limit)
        write_json(self.out / ADVICE, report)
        return report

    def _compute(self, cell: Cell, pool: Workers, judges: Judges, tell: Tell) -> None:
        began = time.monotonic()
        try:
            found = self._figure(cell, pool, judges, lambda what, done, of: tell(f"{cell}: {what}", done, of))
        except FederationError as error:  # not kept: another run tries it again
            self.stopped[cell.size] = str(error)
            return
        name = {"sites": cell.sites, "patients": cell.patients, "repeat": cell.repeat, "what": cell.what}
        took = {"workers": self.workers, "seconds_in_all": round(time.monotonic() - began, 1)}
        write_json(self.out / _CELLS / f"{cell.key}.json", {**found, **name, **took})

    def _figure(self, cell: Cell, pool: Workers, judges: Judges, tell: Tell) -> dict[str, Any]:
        seed = self.question.seed + cell.repeat
        cohorts = self.source.cohorts(cell.plan, cell.patients, self.question.spread, seed)
        if cell.what == "real":
            most = max(1, MOST_REAL // len(cohorts))
            own = [fewer(each, min(cell.plan.sites[name].nominal_patients, most)) for name, each in cohorts.items()]
            tell("images", 0, len(own))
            parts = [judges_of(pool, cell.plan, cohort) for cohort in own]
            return {"auc": _real_auc(cell.plan, parts, judges, seed), "patients_seen": sum(map(patients_of, own))}
        folder = run_folder(self.out, cell.sites, cell.patients, cell.repeat)
        simulation = Simulation(folder, cell.plan, pool, tell, cohorts)
        whole = self.question.release and cell.what == "plan"
        try:
            row = run_one(simulation, *judges, seed, release=whole)
        finally:
            pool.remove(simulation.homes)
            shutil.rmtree(folder, ignore_errors=True)
        if cell.what == "noiseless":
            return {**row, "auc": max(row["utility"].values())}
        model = row["chosen"] or _sampled(cell.plan)
        return {**row, "model": model, "auc": row["utility"][PUBLISHED if whole else model]}

    def report(self, limit: float) -> dict[str, Any]:
        """The table by size, the advice, and the rule that it follows."""
        sizes = [self._size(*size) for size in sizes_of(self.question)]
        return {
            "format": FORMAT,
            "simulated": True,
            "plan": self.real.study,
            "plan_hash": self.real.digest,
            "delta": self.real.privacy.delta,
            "data": Path(self.question.data).name,
            "spread": str(self.question.spread),
            "figure": "of what sites publish"
            if self.question.release
            else "of images drawn from the model it releases",
            "guess_limit": round(limit, 4),
            "complete": not self.missing,
            "sizes": [self._row(size) for size in sizes],
            "notes": self.asked.notes,
            "rule": RULE,
            "advice": sentences(sizes, limit),
            "caution": _caution(self.question.data),
        }

    def _row(self, size: Size) -> dict[str, Any]:
        plans = [cell.plan for cell in self.asked.cells if cell.size == (size.sites, size.patients)]
        return {
            "sites": size.sites,
            "patients": size.patients,
            "auc": list(size.figures),
            "models": list(size.models),
            "real": list(size.real),
            "noiseless": size.noiseless,
            "epsilon": _epsilon(plans[0]) if plans else None,
            "refused": size.refused or None,
        }

    def _size(self, sites: int, patients: int) -> Size:
        own = [self.kept(cell) | {"is": cell.what} for cell in self.asked.cells if cell.size == (sites, patients)]
        found = {what: [one["auc"] for one in own if one["is"] == what and "auc" in one] for what in ("plan", "real")}
        bare = [one["auc"] for one in own if one["is"] == "noiseless" and "auc" in one]
        refused = self.asked.refused.get((sites, patients), "")
        if not found["plan"] and not refused:
            refused = self.stopped.get((sites, patients), "it has not run yet")
        models = [one["model"] for one in own if "model" in one]
        return Size(sites, patients, found["plan"], found["real"], bare[0] if bare else None, models, refused)


@contextmanager
def advising(question: Question, out: Path, where: Where, *, anchors: bool) -> Iterator[Grid]:
    """The grid of a question, kept below `out`, which is nobody else's meanwhile. Raises as `run_simulation` does.

    What an earlier question there found is kept, too: a figure is used again where all that decides it is the same.
    """
    require_both_sides()
    out = out.resolve()
    require_own(out, ADVICE)
    source, real = source_of(question.data), real_plan(question.plan)
    with exclusive(out, "an advice"):
        shutil.rmtree(out / RUNS, ignore_errors=True)
        workers = where.workers or len(os.sched_getaffinity(0))
        asked = asked_cells(question, real, source, out, workers, anchors=anchors)
        write_json(out / ADVICE, {"format": FORMAT, "simulated": True, "complete": False})
        try:
            yield Grid(question, out, where, workers, real, source, asked)
        finally:
            shutil.rmtree(out / RUNS, ignore_errors=True)


def _real_auc(plan: Plan, parts: list[Judges], judges: Judges, seed: int) -> float:
    images, labels = (np.concatenate([part[at] for part in parts]) for at in (0, 1))
    classifier = train_classifier(plan, images, labels, seed)
    return round(auc(score(plan, classifier, judges[0]), judges[1] > 0), 4)


def _limit(labels: AnyArray, patients: int) -> float:
    """What a guess reaches, by patients: images of one patient are no two chances. Raises DataError."""
    share = float((labels > 0).mean())
    if not 0.0 < share < 1.0:
        raise DataError("the patients who judge all have one label: figures need ill and healthy ones")
    ill = min(max(1, round(share * patients)), patients - 1)
    return guess_limit(ill, patients - ill)


def _epsilon(plan: Plan) -> float | None:
    return json_epsilon(epsilon(study_events(plan, "train"), plan.privacy.delta))


def _sampled(plan: Plan) -> str:
    """The model that the release draws from, as it says; the last one where it draws from none."""
    named = [item.model for item in plan.release if isinstance(item, Sampling)]
    return named[0] if named else plan.candidates[-1]


def _caution(data: str) -> str:
    if data == PHANTOM:
        return (
            "SIMULATED. The figures are of procedural patients, and the phantom flatters: real patients are harder. "
            "Trust what more sites or patients change, and which sizes fail, not the level of a figure."
        )
    return f"SIMULATED on the public images of {Path(data).name}: your patients may be harder, or differ more by site."
