"""Train on synthetic, test on real (Esteban et al. 2017), with two families, beside the same trained on real images."""

from __future__ import annotations

import statistics

from sfumato_common.metrics.tstr import balanced_accuracy, macro_auc
from sfumato_server.evaluate.evaluation import Evaluation
from sfumato_server.evaluate.figures.figure import Figure, both, on_real, on_synthetic
from sfumato_server.evaluate.rows import Row, row

_SCORES = {"AUC": macro_auc, "balanced accuracy": balanced_accuracy}


def _measure(evaluation: Evaluation) -> list[Row]:
    found = []
    for family in evaluation.settings.families:
        made, real = on_synthetic(family), on_real(family)
        for name, score in _SCORES.items():
            estimates = evaluation.score(made, score), evaluation.score(real, score)
            found.append(row("tstr", f"{family}: {name}", *estimates, "ratio", note=_spread(evaluation, family)))
    return found


def _spread(evaluation: Evaluation, family: str) -> str:
    """How far seeds of the training move the AUC, which intervals over patients do not hold."""
    if evaluation.settings.seeds < 2:
        return "one seed"
    labels = evaluation.real.test.labels
    spread = [
        statistics.stdev(
            macro_auc(one, labels) for one in evaluation.trainings.over_seeds(kind(family), evaluation.settings.seeds)
        )
        for kind in (on_synthetic, on_real)
    ]
    return f"AUC over {evaluation.settings.seeds} seeds ± {spread[0]:.3f}, real ± {spread[1]:.3f}"


TSTR = Figure(
    "tstr",
    "Trained on the set, tested on real patients",
    "What a classifier of synthetic images reads in real patients, and the same one trained as long on real images.",
    _measure,
    both,
)
