"""An evaluation from beginning to end, and what is left of it: facts, lines and what has to be said beside them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato_common.errors import ConfigError
from sfumato_server.evaluate.evaluation import Evaluation
from sfumato_server.evaluate.figures import FIGURES
from sfumato_server.evaluate.index import read_real
from sfumato_server.evaluate.made import read_made
from sfumato_server.evaluate.reading import Note, Reading
from sfumato_server.evaluate.rows import Row
from sfumato_server.evaluate.settings import LEVEL, Settings
from sfumato_server.publish.converted import open_statement

PRIVATE = (
    "These figures are of private images: they are neither charged nor private. Do not publish them without a charge "
    "to the ledger of the hospital whose patients they are of."
)
PUBLIC = (
    "The real images were declared public (--public): nothing was charged for these figures, and nothing checked that."
)
INTERVALS = (
    f"Intervals are {LEVEL:.0%}, over patients: whole patients of the tested split are drawn with replacement, or left "
    "out in groups where a line says jackknife. They do not hold the chance of another release, nor, beyond the seeds "
    "given, of another training."
)


@dataclass(frozen=True)
class Report:
    """Facts by name, lines of all figures in the order of the table, and sentences that belong beside them."""

    facts: dict[str, Any]
    rows: tuple[Row, ...]
    notices: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Stable names for scripts."""
        return {**self.facts, "notices": list(self.notices), "figures": [line.as_json() for line in self.rows]}


def evaluate(
    folder: Path,
    index: Path,
    settings: Settings,
    names: Collection[str] = (),
    reading: Reading = Reading(),  # noqa: B008, frozen
    note: Note = lambda line: None,
) -> Report:
    """Measure the published set in `folder` against the real images of `index`, by the figures of `names`, or all.

    `reading` is how the index is read; `note` is told what goes on. Raises ConfigError,
    VerificationError and DataError, each before anything is trained.
    """
    if unknown := sorted(set(names) - set(FIGURES)):
        raise ConfigError(f"there is no figure '{unknown[0]}'; choose of {', '.join(FIGURES)}")
    evaluation = read_evaluation(folder, index, settings, reading, note)
    figures = [figure for name, figure in FIGURES.items() if not names or name in names]
    evaluation.trainings.run((one for figure in figures for one in figure.needs(evaluation)), note)
    rows = list[Row]()
    for figure in figures:
        note(f"measuring: {figure.title.lower()}")
        rows += figure.measure(evaluation)
    return Report(_facts(evaluation, index), tuple(rows), _notices(evaluation))


def read_evaluation(
    folder: Path,
    index: Path,
    settings: Settings,
    reading: Reading = Reading(),  # noqa: B008, frozen
    note: Note = lambda line: None,
) -> Evaluation:
    """Both sets, read and checked. Raises what `evaluate` raises."""
    plan = open_statement(folder).plan
    note("reading the real images")
    real = read_real(index, plan.labels, plan.image, settings.split, reading, note)
    note("reading the published set")
    return Evaluation(read_made(folder, settings.most), real, settings)


def _facts(evaluation: Evaluation, index: Path) -> dict[str, Any]:
    made, real, settings = evaluation.made, evaluation.real, evaluation.settings
    return {
        "study": made.plan.study,
        "plan_hash": made.plan.study_digest,
        "manifest_sha256": made.manifest_sha256,
        "by": settings.by,
        "index": index.name,
        "data": "declared public" if settings.public else "private",
        "split": settings.split,
        "labels": list(made.plan.labels),
        "images": {"set": made.count, "used": len(made.images), "train": len(real.train), "tested": len(real.test)},
        "patients": {"train": real.train.people(), "tested": real.test.people()},
        "compared": len(evaluation.compared[0]),
        "steps": evaluation.trainings.steps,
        "seeds": settings.seeds,
        "draws": settings.draws,
        "encoders": list(settings.encoders),
        "device": settings.device.type,
    }


def _notices(evaluation: Evaluation) -> tuple[str, ...]:
    made, settings = evaluation.made, evaluation.settings
    said = [PUBLIC if settings.public else PRIVATE, INTERVALS]
    if len(made.images) < made.count:
        said.append(f"Classifiers saw {len(made.images):,} of the set's {made.count:,} images, drawn from all alike.")
    if evaluation.trainings.steps != dict(settings.steps):
        said.append(
            "Training was cut short by --minutes, the same for all: real images' own figures say what that costs."
        )
    if settings.split == "val":
        said.append(
            "A study of an index trains on its validation patients too: ask by --split test whether this one did."
        )
    return tuple(said)
