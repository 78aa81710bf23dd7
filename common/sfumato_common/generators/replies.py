"""What an honest reply can be: sums over at most so many patients, plus noise of a known size; everything else is none.

A patient's share of every sum lies in a public ball, so that norms follow from counts, and the noise's deviation is in
the plan. Bounds on the noise fail an honest reply with probability `FALSE_ALARM` at most: tails of single draws by
their quantile, norms by Laurent and Massart (2000, lemma 1), eigenvalues by Davidson and Szarek (2001, theorem 2.11).
What these bounds leave to a dishonest site is the influence of `PATIENT_SLACK` times its nominal patients.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from sfumato_common.errors import VerificationError
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.types import AnyArray

Float64 = npt.NDArray[np.float64]
# nominal patients are agreed on paper: a site may have twice as many, and no reply counts for more
PATIENT_SLACK = 2.0
# the chance, over its noise, that one honest reply is refused
FALSE_ALARM = 1e-9
# checks of one reply share that chance; there are fewer in any reply
_CHECKS = 1024
# the grid widens the noise by 0.16 % at most, and float32 rounds a sum by far less
_WIDER = 1.002


def most_patients(plan: PublicPlan, site: str) -> float:
    """The most patients that a reply of `site` may count."""
    return PATIENT_SLACK * plan.sites[site].nominal_patients


def noise_peak(sigma: float, draws: int = 1) -> float:
    """What none of so many Gaussian draws of deviation `sigma` exceeds in size."""
    return -NormalDist().inv_cdf(FALSE_ALARM / _CHECKS / (2.0 * draws)) * sigma * _WIDER


def noise_norm(sigma: float, draws: int) -> float:
    """What the L2 norm of so many Gaussian draws of deviation `sigma` does not exceed."""
    return (math.sqrt(draws) + math.sqrt(2.0 * math.log(_CHECKS / FALSE_ALARM))) * sigma * _WIDER


def require(holds: bool | np.bool_, what: str) -> None:
    """Raise VerificationError, which says that `what` is none that the plan makes possible, unless `holds`."""
    if not holds:
        raise VerificationError(f"{what} of a reply is beyond what the plan makes possible; the reply is left out")


def check_counts(noised: Float64, weight: float, sigma: float, patients: float) -> Float64:
    """The most patients [K] that noised, weighted counts [K] of disjoint patients can stand for; `patients` in all.

    Raises VerificationError where one is below 0, or all together above `patients`, by more than the noise explains.
    """
    peak = noise_peak(sigma, len(noised))
    require(noised.min() >= -peak, "a count")
    require(noised.sum() <= weight * patients + noise_peak(sigma * math.sqrt(len(noised))), "the number of patients")
    return np.asarray(np.clip((noised + peak) / weight, 0.0, patients))


def check_norms(vectors: Float64, weight: float, counts: Float64, sigma: float) -> None:
    """Raise VerificationError where a row of [K, D] is longer than `counts` [K] patients of norm `weight` make it."""
    lengths = np.linalg.norm(vectors, axis=1)
    require(bool((lengths <= weight * counts + noise_norm(sigma, vectors.shape[1])).all()), "a sum")


def check_histograms(noised: AnyArray, sigma: float, patients: float) -> None:
    """Raise VerificationError for noised counts [..., K, B] that no histograms of one cohort's scores are.

    No cell is below 0, each histogram counts `patients` at most, and all count the same patients of each class.
    """
    counts = np.asarray(noised, np.float64).reshape(-1, *noised.shape[-2:])
    cells = counts[0].size
    require(counts.min() >= -noise_peak(sigma, counts.size), "a count")
    whole = noise_peak(sigma * math.sqrt(cells), len(counts))
    require(counts.sum(axis=(1, 2)).max() <= patients + whole, "the number of patients")
    classes = counts.sum(axis=2)
    apart = noise_peak(sigma * math.sqrt(2.0 * counts.shape[2]), classes.size)
    require(np.abs(classes - classes[0]).max() <= apart, "the number of a class's patients")
