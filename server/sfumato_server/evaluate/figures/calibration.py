"""Whether probabilities of a classifier that saw the set alone mean what they say (Guo et al. 2017; Brier 1950)."""

from __future__ import annotations

from sfumato_common.metrics.calibration import brier_score, calibration_error
from sfumato_server.evaluate.evaluation import Evaluation, Score
from sfumato_server.evaluate.figures.figure import Figure, both, on_real, on_synthetic
from sfumato_server.evaluate.rows import Row, jackknifed_row

_SCORES = {"expected calibration error": calibration_error, "Brier score": brier_score}


def _measure(evaluation: Evaluation) -> list[Row]:
    return [
        jackknifed_row("calibration", f"{family}: {name}", *_figures(evaluation, family, score), "difference")
        for family in evaluation.settings.families
        for name, score in _SCORES.items()
    ]


def _figures(
    evaluation: Evaluation, family: str, score: Score
) -> tuple[tuple[float, float], list[tuple[float, float]]]:
    """A score of both, and without each group of patients: a patient drawn twice would look like a gap."""
    (made, others), (real, rest) = (evaluation.left_out(kind(family), score) for kind in (on_synthetic, on_real))
    return (made, real), list(zip(others, rest, strict=True))


CALIBRATION = Figure(
    "calibration",
    "Calibration",
    "How far a classifier's probabilities are from the shares that are right: 0 is best.",
    _measure,
    both,
)
