"""Which released model serves best, read off noisy histograms of TRAINING patients' scores: what is sent and decided.

The coordinator trains the fixed classifier on a sample of every released model; a site scores each of its training
patients with all C classifiers and answers with C histograms, in one Gaussian release. The classifiers are functions of
differentially private models, so scores of the very patients who trained those differ from other patients' by no more
than privacy allows (differential privacy implies generalisation: Dwork et al. 2015, "Preserving statistical validity in
adaptive data analysis"; at an epsilon of 10 their bounds are loose, and what membership attacks find is the better
guide). The holdout patients stay untouched for the published figure, which therefore is not the one chosen by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.metrics.clear import least_total
from sfumato_common.metrics.utility import classifier_schema
from sfumato_common.types import AnyArray, Arrays, ArraySpec, FloatArray

Float64 = npt.NDArray[np.float64]
# The chance that any trained model which is no better than the spectral one is chosen all the same, at most.
WRONG_CHOICE = 0.05
# How much farther than the spectral model's own images a model's may lie from the released moments
# (see generators/spectral/moments.py): as far as if every standard deviation were halved. Set before any model was
# judged by it.
FARTHER = 0.25
# Standard deviation of the AUC over seeds of the classifier's own training, as measured on phantom cohorts (public);
# part of the margin, since another seed must not turn the choice round.
TRAINING_DEVIATION = 0.005
# Log-odds beyond which scores are not told apart, and the standard deviation that classifiers are brought to.
_LONGEST_ODDS, _USUAL_ODDS = 6.0, 2.0
# in place of a site's name, where sites' histograms came as one sum
SUMMED = "all sites together"


def classifiers_schema(plan: PublicPlan) -> dict[str, ArraySpec]:
    """What the coordinator sends: the classifier of every candidate, arrays named `<kind>:<parameter>`."""
    own = classifier_schema(plan)
    return {f"{kind}:{name}": spec for kind in plan.candidates for name, spec in own.items()}


def classifier_of(kind: str, arrays: Arrays) -> dict[str, AnyArray]:
    """The arrays of one candidate's classifier, under their own names."""
    return {name.removeprefix(f"{kind}:"): value for name, value in arrays.items() if name.startswith(f"{kind}:")}


def spread(scores: FloatArray) -> Float64:
    """Scores [N] in [0, 1] spaced by their log-odds, -6 at 0 and 6 at 1, so that equal bins resolve all of them.

    In equal bins of the score itself, a confident classifier's scores crowd at 0 and 1 and lose their order.
    """
    return np.asarray((np.clip(_odds(scores), -_LONGEST_ODDS, _LONGEST_ODDS) / _LONGEST_ODDS + 1.0) / 2.0)


def scale_log_odds(classifier: Arrays, scores: FloatArray) -> dict[str, AnyArray]:
    """`classifier` with its last layer scaled so that its log-odds, now those of `scores` [N], have mean 0 and sd 2.

    Done on synthetic images before it is sent: bins then resolve every candidate alike, and confidence decides nothing.
    """
    odds = _odds(scores)
    factor = _USUAL_ODDS / max(float(odds.std()), 1e-2)
    bias = np.asarray(classifier["head.bias"]) * factor
    bias[0] += factor * odds.mean()
    changed = {"head.weight": np.asarray(classifier["head.weight"]) * factor, "head.bias": bias}
    return {**classifier, **{name: value.astype(np.float32) for name, value in changed.items()}}


def _odds(scores: FloatArray) -> Float64:
    inside = np.clip(np.nan_to_num(np.asarray(scores, np.float64)), 1e-9, 1.0 - 1e-9)
    return np.asarray(np.log(inside) - np.log1p(-inside))


@dataclass(frozen=True)
class Judged:
    """One candidate: its AUC (None where the noise left none) with its standard deviation, and its moments' distance.

    `verdict` says in words what became of it; the spectral model is the floor.
    """

    model: str
    auc: float | None
    deviation: float | None
    distance: float
    verdict: str


@dataclass(frozen=True)
class Choice:
    """What was chosen among `judged`, by the figures of `sites`; a trained model had to lead by its margin."""

    winner: str
    judged: tuple[Judged, ...]
    sites: tuple[str, ...]


def decide(
    plan: PublicPlan,
    noise_multiplier: float,
    histograms: Mapping[str, AnyArray],
    distances: Float64,
    trimmed: int = 0,
) -> Choice:
    """Choose from the sites' noisy histograms [C, K, bins] and the candidates' distances [C] from the released moments.

    A candidate's AUC is the mean over sites weighted by nominal patients: within a site, so that a classifier gains
    nothing by telling sites apart; a site counts when its histograms show both sides clearly. A trained model wins when
    it leads the spectral one by more than the one-sided margin of that difference, and its moments are not too far. The
    margin is from the known noise, the finite number of patients (the two models' taken as independent, which is too
    wide for scores of the same patients) and the classifier's training, split over the candidates (Bonferroni). Ties,
    and no figure at all, go to the spectral model.

    Histograms that came as one sum stand under `SUMMED`, and are judged as one site's.

    With `trimmed` sites cut off either end, means are trimmed ones (Yin et al. 2018), and the margin is that of the
    sites that are left, as if they had been there alone: wider than it need be.
    """
    kinds = plan.candidates
    deviation = noise_multiplier * math.sqrt(len(kinds))
    figures = {site: _figures(np.asarray(value, np.float64), deviation) for site, value in sorted(histograms.items())}
    clear = {site: found for site, found in figures.items() if found is not None}
    if len(clear) <= 2 * trimmed:
        blind = [Judged(kind, None, None, float(far), "no figure") for kind, far in zip(kinds, distances, strict=True)]
        return Choice(kinds[0], tuple(blind), ())
    patients = {SUMMED: 1, **{site: terms.nominal_patients for site, terms in plan.sites.items()}}
    shares = np.array([patients[site] for site in clear], np.float64)
    shares /= shares.sum()
    stacked = np.stack(list(clear.values()))  # [sites, C, (auc, variance)]
    aucs, variances = _mean(stacked[:, :, 0], stacked[:, :, 1], shares, trimmed)
    lead, spread_of_lead = _mean(
        stacked[:, :, 0] - stacked[:, :1, 0], stacked[:, :, 1] + stacked[:, :1, 1], shares, trimmed
    )
    quantile = NormalDist().inv_cdf(1.0 - WRONG_CHOICE / (len(kinds) - 1))
    leads = lead > quantile * np.sqrt(spread_of_lead + 2.0 * TRAINING_DEVIATION**2)
    near = distances <= distances[0] + FARTHER
    able = np.flatnonzero(leads & near)
    winner = int(able[np.argmax(aucs[able])]) if len(able) else 0
    judged = []
    for place, kind in enumerate(kinds):
        verdict = _verdict(place, winner, leads=bool(leads[place]), near=bool(near[place]))
        judged.append(Judged(kind, float(aucs[place]), math.sqrt(variances[place]), float(distances[place]), verdict))
    return Choice(kinds[winner], tuple(judged), tuple(clear))


def _mean(values: Float64, variances: Float64, shares: Float64, trimmed: int) -> tuple[Float64, Float64]:
    """Mean [C] of `values` [sites, C] by `shares` [sites], and its variance, without the `trimmed` ends of a column."""
    ranks = values.argsort(axis=0).argsort(axis=0)
    kept = shares[:, None] * ((ranks >= trimmed) & (ranks < len(values) - trimmed))
    kept /= kept.sum(axis=0)
    return (kept * values).sum(axis=0), (kept**2 * variances).sum(axis=0)


def _verdict(place: int, winner: int, *, leads: bool, near: bool) -> str:
    if place == winner:
        return "chosen"
    if place == 0:
        return "outdone"
    if not near:
        return "its moments are too far from the released ones"
    return "better, but not the best" if leads else "not better by more than the noise"


def _figures(histograms: Float64, deviation: float) -> Float64 | None:
    """AUC and its variance [C, 2] of each candidate at one site, or None where a side does not show clearly."""
    found = [_auc(histogram, deviation) for histogram in histograms]
    return None if any(figure is None for figure in found) else np.array(found)


def _auc(histogram: Float64, deviation: float) -> tuple[float, float] | None:
    """AUC of all classes but the first against the first from noisy counts [K, bins], and its variance.

    Counts are not cut off at 0, so that the noise does not pull the figure to 1/2. The variance is that of the linear
    part (delta method) under the known noise and Poisson counts.
    """
    behind, ahead = histogram[0], histogram[1:].sum(axis=0)
    noise = np.array([deviation**2, deviation**2 * (len(histogram) - 1)])
    totals = np.array([behind.sum(), ahead.sum()])
    bins = histogram.shape[1]
    if totals[0] < least_total(deviation, 1, bins) or totals[1] < least_total(deviation, len(histogram) - 1, bins):
        return None
    below = (np.cumsum(behind) - behind / 2.0) / totals[0]
    above = (totals[1] - np.cumsum(ahead) + ahead / 2.0) / totals[1]
    auc = float(ahead @ below / totals[1])
    variance = ((below - auc) ** 2) @ (noise[1] + np.maximum(ahead, 0.0)) / totals[1] ** 2
    variance += ((above - auc) ** 2) @ (noise[0] + np.maximum(behind, 0.0)) / totals[0] ** 2
    return auc, float(variance)
