"""The figures that `sfumato plan advise` computes, one a cell, and the name under which each is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sfumato_common import __version__
from sfumato_common.errors import BudgetExceeded, ConfigError, DataError
from sfumato_common.files import canonical_json
from sfumato_common.study.plan import Plan
from sfumato_server.simulate.cohorts import PHANTOM, Source
from sfumato_server.simulate.effort import real_effort, study_effort
from sfumato_server.simulate.plans import repeated, simulated_plan, without_noise
from sfumato_server.simulate.run import Question, run_folder

What = Literal["plan", "real", "noiseless"]
# what a kept figure means; another number where a figure would now be another
_FIGURES = 1


@dataclass(frozen=True)
class Cell:
    """One figure to compute; `key` names all that it follows from, `effort` is its seconds, roughly."""

    sites: int
    patients: int
    repeat: int
    what: What
    plan: Plan
    effort: float
    key: str

    @property
    def size(self) -> tuple[int, int]:
        """Sites, and patients a site."""
        return self.sites, self.patients

    def __str__(self) -> str:
        what = {"plan": f"study {self.repeat}", "real": f"real images {self.repeat}", "noiseless": "without noise"}
        return f"{self.sites} sites of {self.patients}, {what[self.what]}"


@dataclass
class Asked:
    """All cells, smallest cohorts first; sizes and anchors that cannot be run, each with the reason."""

    cells: list[Cell] = field(default_factory=list)
    refused: dict[tuple[int, int], str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def sizes_of(question: Question) -> list[tuple[int, int]]:
    """(sites, patients a site), smallest cohorts first."""
    return sorted(
        ((s, p) for s in question.sites for p in question.patients), key=lambda size: (size[0] * size[1], size)
    )


def asked_cells(question: Question, real: Plan, source: Source, out: Path, workers: int, *, anchors: bool) -> Asked:
    """Every cell of the grid. Plans are resolved here: a size that no study could have is told before anything runs."""
    asked = Asked()
    for sites, patients in sizes_of(question):
        file = run_folder(out, sites, patients, 1) / "plan.yaml"
        try:
            plan = simulated_plan(question.plan, real, file, sites, patients, 1, release=question.release)
            source.cohorts(plan, patients, question.spread, question.seed + 1)
        except (ConfigError, BudgetExceeded, DataError) as error:
            asked.refused[sites, patients] = str(error)
            continue
        for repeat in range(1, question.repeats + 1):
            own = repeated(plan, real, repeat)
            asked.cells.append(_cell(question, "plan", own, patients, repeat, study_effort(own, patients, workers)))
            if anchors:
                asked.cells.append(_cell(question, "real", own, patients, repeat, real_effort(own, patients, workers)))
        if anchors:
            asked.cells += _noiseless(question, plan, patients, workers, asked.notes)
    return asked


def _noiseless(question: Question, plan: Plan, patients: int, workers: int, notes: list[str]) -> Iterator[Cell]:
    try:
        bare = without_noise(plan)
    except ConfigError as error:
        if (note := f"nothing was run without noise: {error}") not in notes:
            notes.append(note)
        return
    yield _cell(question, "noiseless", bare, patients, 1, study_effort(bare, patients, workers))


def _cell(question: Question, what: What, plan: Plan, patients: int, repeat: int, effort: float) -> Cell:
    """The plan's digest has its sites, nominal patients and repeat; what else decides a figure stands beside it."""
    data = question.data if question.data == PHANTOM else hashlib.sha256(Path(question.data).read_bytes()).hexdigest()
    follows = {
        "figures": _FIGURES,
        "version": __version__,
        "what": what,
        "plan": plan.study_digest,
        "patients": patients,
        "repeat": repeat,
        "data": data,
        "spread": str(question.spread),
        "seed": question.seed,
        "release": question.release and what == "plan",
    }
    key = hashlib.sha256(canonical_json(follows)).hexdigest()[:32]
    return Cell(len(plan.sites), patients, repeat, what, plan, effort, key)
