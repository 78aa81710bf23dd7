"""What synthetic images add to real ones: the same patients with and without the set, seed by seed."""

from __future__ import annotations

import statistics

from sfumato_common.metrics.tstr import macro_auc
from sfumato_server.evaluate.evaluation import Evaluation
from sfumato_server.evaluate.figures.figure import Figure, all_seeds
from sfumato_server.evaluate.rows import Row, row
from sfumato_server.evaluate.training import Training


def _pair(evaluation: Evaluation, share: float) -> tuple[Training, Training]:
    family = evaluation.settings.families[0]
    return Training(family, 0, real=share, synthetic=True), Training(family, 0, real=share)


def _needs(evaluation: Evaluation) -> list[Training]:
    shares = evaluation.settings.fractions
    return all_seeds(evaluation, *(one for share in shares for one in _pair(evaluation, share)))


def _measure(evaluation: Evaluation) -> list[Row]:
    found = []
    for share in evaluation.settings.fractions:
        mixed, alone = _pair(evaluation, share)
        estimates = evaluation.score(mixed, macro_auc), evaluation.score(alone, macro_auc)
        gains = evaluation.paired(mixed, alone, macro_auc)
        spread = f"{sum(gain > 0 for gain in gains)} of {len(gains)} seeds gain"
        spread += f", ± {statistics.stdev(gains):.3f}" if len(gains) > 1 else ""
        of = f"{mixed.family}: AUC of {share:.0%} of the real patients with the set"
        found.append(row("augmentation", of, *estimates, "difference", note=spread))
    return found


AUGMENTATION = Figure(
    "augmentation",
    "Real and synthetic images together",
    "What real images reach with the set beside them, against them alone; the smaller part is repeated to about half.",
    _measure,
    _needs,
)
