"""Figures of a classifier tested on real patients, their interval over patients, and a linear model on fixed features.

Train on synthetic, test on real: Esteban et al. 2017. `utility.py` has the small CNN that sites can score too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from sfumato_common.metrics.ranks import percentile_interval
from sfumato_common.metrics.utility import auc

Float64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def macro_auc(probabilities: Float64, labels: Labels) -> float:
    """Area under the ROC curve of probabilities [N, K]: of class 1 when K = 2, else the one-vs-rest mean.

    Classes that all or none of the records have are left out; nan when none is left.
    """
    classes = [1] if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    values = [auc(probabilities[:, k], labels == k) for k in classes]
    finite = [value for value in values if not np.isnan(value)]
    return float(np.mean(finite)) if finite else float("nan")


def balanced_accuracy(probabilities: Float64, labels: Labels) -> float:
    """Mean over the classes present of the share of a class's records that are given it (Brodersen et al. 2010)."""
    right = probabilities.argmax(axis=1) == labels
    return float(np.mean([right[labels == k].mean() for k in np.unique(labels)]))


def patient_draws(patients: Labels, rng: np.random.Generator, draws: int) -> Iterator[Labels]:
    """Rows of `draws` samples of whole patients with replacement, as many as there are (Field and Welsh 2007).

    Images of one patient are alike, so drawing images would make intervals too narrow. `patients` [N] owns the rows.
    """
    order = np.argsort(patients, kind="stable")
    rows_of = np.split(order, np.flatnonzero(np.diff(patients[order])) + 1)
    for _ in range(draws):
        drawn = rng.integers(0, len(rows_of), len(rows_of))
        yield np.concatenate([rows_of[patient] for patient in drawn])


def patient_interval(
    figure: Callable[[npt.NDArray[np.int64]], float],
    patients: npt.NDArray[np.int64],
    rng: np.random.Generator,
    draws: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of `figure(rows)` over `patient_draws`; nan where no draw has the figure."""
    return percentile_interval(map(figure, patient_draws(patients, rng, draws)), level)


@dataclass(frozen=True, eq=False)
class LinearModel:
    """Multinomial logistic regression on standardised features: centre and scale [d], weights [d + 1, K]."""

    centre: Float64
    scale: Float64
    weights: Float64

    def probabilities(self, features: Float64) -> Float64:
        """Probabilities [N, K] of features [N, d]."""
        return np.asarray(softmax(_design((features - self.centre) / self.scale) @ self.weights, axis=1))


def fit_linear(features: Float64, labels: Labels, classes: int, penalty: float = 1e-2) -> LinearModel:
    """Fit by L-BFGS, classes weighing alike, with penalty / 2 x |weights|^2 (Hastie et al. 2009, section 4.4)."""
    centre, scale = features.mean(axis=0), features.std(axis=0) + 1e-9
    design, target = _design((features - centre) / scale), np.eye(classes)[labels]
    share = (1.0 / np.maximum(np.bincount(labels, minlength=classes), 1))[labels]
    share = share / share.sum()
    shrunk = np.append(np.ones(features.shape[1]), 0.0)[:, None]  # the intercept is free

    def loss(flat: Float64) -> tuple[float, Float64]:
        weights = flat.reshape(-1, classes)
        logits = design @ weights
        value = -(share[:, None] * target * log_softmax(logits, axis=1)).sum()
        gradient = design.T @ (share[:, None] * (softmax(logits, axis=1) - target)) + penalty * shrunk * weights
        return float(value + 0.5 * penalty * (shrunk * weights**2).sum()), gradient.ravel()

    start = np.zeros(design.shape[1] * classes)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return LinearModel(centre, scale, found.x.reshape(-1, classes))


@dataclass(frozen=True)
class RealTest:
    """AUC on real records of a model that saw synthetic ones alone, and its 95 % interval over patients."""

    auc: float
    low: float
    high: float


def tstr(
    synthetic: Float64,
    labels: Labels,
    real: Float64,
    real_labels: Labels,
    patients: Labels,
    rng: np.random.Generator,
    draws: int = 200,
) -> RealTest:
    """Train on synthetic, test on real (Esteban et al. 2017): features [N, d] and [M, d], their labels [N] and [M].

    A linear model is fitted to the synthetic features and tested on the real ones, `patients` [M] owning them; `rng`
    draws the interval. nan where the real records have one class only.
    """
    classes = 1 + int(max(labels.max(), real_labels.max()))
    scores = fit_linear(synthetic, labels, classes).probabilities(real)

    def figure(rows: npt.NDArray[np.int64]) -> float:
        return macro_auc(scores[rows], real_labels[rows])

    low, high = patient_interval(figure, patients, rng, draws)
    return RealTest(macro_auc(scores, real_labels), low, high)


def _design(features: Float64) -> Float64:
    return np.column_stack([features, np.ones(len(features))])
