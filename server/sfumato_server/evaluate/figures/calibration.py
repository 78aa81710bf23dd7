"""Whether probabilities of a classifier that saw the set alone mean what they say (Guo et al. 2017; Brier 1950)."""

from __future__ import annotations

from sfumato_common.metrics.calibration import brier_score, calibration_error
from sfumato_server.evaluate.evaluation import Evaluation
from sfumato_server.evaluate.figures.figure import Figure, both, jackknifed_score
from sfumato_server.evaluate.rows import Row

_SCORES = {"expected calibration error": calibration_error, "Brier score": brier_score}


def _measure(evaluation: Evaluation) -> list[Row]:
    return [
        jackknifed_score(evaluation, "calibration", f"{family}: {name}", family, score)
        for family in evaluation.settings.families
        for name, score in _SCORES.items()
    ]


CALIBRATION = Figure(
    "calibration",
    "Calibration",
    "How far a classifier's probabilities are from the shares that are right: 0 is best.",
    _measure,
    both,
)
