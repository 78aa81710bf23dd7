"""Every method of the set by itself: a classifier of its images alone, asked about real patients."""

from __future__ import annotations

import numpy as np

from sfumato_common.metrics.tstr import macro_auc
from sfumato_server.evaluate.evaluation import Evaluation
from sfumato_server.evaluate.figures.figure import Figure, all_seeds, on_real
from sfumato_server.evaluate.rows import Row, row
from sfumato_server.evaluate.training import Training

SOURCE = "source"


def _sources(evaluation: Evaluation) -> dict[str, str]:
    """Methods, each with its model, and why one has no figure; empty where it has."""
    made = evaluation.made.images
    words = made.groups.get(SOURCE, np.array([]))
    labels = {str(name): np.unique(made.labels[words == name]) for name in sorted(set(words))}
    lacking = "no figure: its images do not have all labels"
    return {name: "" if len(own) == evaluation.classes else lacking for name, own in labels.items()}


def _training(evaluation: Evaluation, source: str) -> Training:
    return Training(evaluation.settings.families[0], 0, synthetic=True, source=source)


def _needs(evaluation: Evaluation) -> list[Training]:
    able = [source for source, why in _sources(evaluation).items() if not why]
    trainings = [_training(evaluation, source) for source in able]
    return all_seeds(evaluation, *trainings, on_real(evaluation.settings.families[0]))


def _measure(evaluation: Evaluation) -> list[Row]:
    family, found = evaluation.settings.families[0], []
    for source, why in _sources(evaluation).items():
        of = f"{family}: AUC of {source}"
        if why:
            found.append(Row("methods", of, note=why, subject=source))
            continue
        made, real = (
            evaluation.score(training, macro_auc) for training in (_training(evaluation, source), on_real(family))
        )
        found.append(row("methods", of, made, real, "ratio", subject=source))
    return found or [Row("methods", "methods", note="no figure: nothing says by which method the images were made")]


METHODS = Figure(
    "methods",
    "Each method by itself",
    "A classifier of the images of one method alone: what the report's first picture draws with 'card --figures'.",
    _measure,
    _needs,
)
