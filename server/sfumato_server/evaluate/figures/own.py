"""A site's own synthetic images, asked about that site's own real patients.

Pooled figures hold the difference between sites: a classifier may tell the sites apart, and so the labels.
"""

from __future__ import annotations

import numpy as np

from sfumato_common.metrics.tstr import macro_auc
from sfumato_server.evaluate.evaluation import Evaluation
from sfumato_server.evaluate.figures.figure import Figure, all_seeds
from sfumato_server.evaluate.rows import Row, row
from sfumato_server.evaluate.training import Training


def _sites(evaluation: Evaluation) -> dict[str, str]:
    """Sites of the index, and why one has no figure; empty where it has."""
    test, made, train = evaluation.real.test, evaluation.made.images, evaluation.real.train
    if "site" not in test.groups or "site" not in train.groups:
        return {}
    found = {}
    for site in sorted(set(test.groups["site"]) - {""}):
        own = [images.labels[images.groups["site"] == site] for images in (made, test, train)]
        lacking = [
            who
            for who, labels in zip(("synthetic", "tested", "training"), own, strict=True)
            if len(np.unique(labels)) < evaluation.classes
        ]
        found[str(site)] = f"no figure: its {lacking[0]} images do not have all labels" if lacking else ""
    return found


def _trainings(evaluation: Evaluation, site: str) -> tuple[Training, Training]:
    family = evaluation.settings.families[0]
    return Training(family, 0, synthetic=True, site=site), Training(family, 0, real=1.0, site=site)


def _needs(evaluation: Evaluation) -> list[Training]:
    able = [site for site, why in _sites(evaluation).items() if not why]
    return all_seeds(evaluation, *(training for site in able for training in _trainings(evaluation, site)))


def _measure(evaluation: Evaluation) -> list[Row]:
    found = []
    for site, why in _sites(evaluation).items():
        of = f"{evaluation.settings.families[0]}: AUC of {site} by its own images"
        if why:
            found.append(Row("own", of, note=why))
            continue
        rows = np.flatnonzero(evaluation.real.test.groups["site"] == site)
        estimates = [evaluation.score(training, macro_auc, rows) for training in _trainings(evaluation, site)]
        found.append(row("own", of, estimates[0], estimates[1], "ratio"))
    return found or [Row("own", "sites", note="no figure: the index has no column 'site'")]


OWN = Figure(
    "own",
    "Each site by its own images",
    "A classifier of one site's synthetic images on its real patients: it gains nothing by telling sites apart.",
    _measure,
    _needs,
)
