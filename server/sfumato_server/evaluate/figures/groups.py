"""Figures by label, and by site, sex and age where the index has them and a group has enough patients."""

from __future__ import annotations

from functools import partial

import numpy as np

from sfumato_common.metrics.calibration import calibration_error
from sfumato_common.metrics.tstr import macro_auc
from sfumato_common.metrics.utility import auc
from sfumato_server.evaluate.evaluation import Evaluation, Float64
from sfumato_server.evaluate.figures.figure import Figure, jackknifed_score, of_first, on_real, on_synthetic
from sfumato_server.evaluate.images import Images, Labels
from sfumato_server.evaluate.rows import Row, row
from sfumato_server.evaluate.settings import FEWEST


def _sensitivity(label: int, probabilities: Float64, labels: Labels) -> float:
    own = labels == label
    return float((probabilities.argmax(axis=1)[own] == label).mean()) if own.any() else float("nan")


def _one_against_rest(label: int, probabilities: Float64, labels: Labels) -> float:
    return auc(probabilities[:, label], labels == label)


def _fewest(images: Images) -> int:
    """The number of patients on the smaller side: with the label that most have, or with another."""
    with_label = [len(np.unique(images.patients[images.labels == label])) for label in np.unique(images.labels)]
    return 0 if len(with_label) < 2 else sorted(with_label)[-2]


def _measure(evaluation: Evaluation) -> list[Row]:
    family = evaluation.settings.families[0]
    made, real, test = on_synthetic(family), on_real(family), evaluation.real.test
    found = []
    for at, name in enumerate(evaluation.made.plan.labels):
        people = len(np.unique(test.patients[test.labels == at]))
        scores = {"sensitivity": partial(_sensitivity, at)}
        scores |= {"AUC against the rest": partial(_one_against_rest, at)} if evaluation.classes > 2 else {}
        for what, score in scores.items():
            of = f"{family}: {what} of label {name}"
            if people < FEWEST:
                found.append(Row("groups", of, note=_too_few(people)))
                continue
            estimates = evaluation.score(made, score), evaluation.score(real, score)
            found.append(row("groups", of, *estimates, "difference", note=f"{people} patients"))
    for kind, words in test.groups.items():
        for group in sorted(set(words)):
            rows = np.flatnonzero(words == group)
            fewest, of = _fewest(test.part(rows)), f"{family}: AUC of {kind} {group or 'not known'}"
            if fewest < FEWEST:
                found.append(Row("groups", of, note=_too_few(fewest)))
                continue
            estimates = evaluation.score(made, macro_auc, rows), evaluation.score(real, macro_auc, rows)
            found.append(row("groups", of, *estimates, "difference", note=f"{test.part(rows).people()} patients"))
            gap = of.replace("AUC", "expected calibration error", 1)
            found.append(jackknifed_score(evaluation, "groups", gap, family, calibration_error, rows))
    return found


def _too_few(patients: int) -> str:
    return f"too few patients: {patients} on one side, and {FEWEST} are needed"


GROUPED = Figure(
    "groups",
    "By label and group",
    "Where the set's classifier serves less well: by label, and by site, sex and age where the index names them.",
    _measure,
    of_first,
)
