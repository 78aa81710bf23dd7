"""What the utility bench says about one set of images: scored on test patients, against the cohort's real images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt
import torch
from cohorts import BenchCohort, pooled
from in_process import ENCODERS
from judge_scores import nearness

from sfumato_common.encoders.encoder import Encoder, Encoders
from sfumato_common.encoders.files import default_is_installed
from sfumato_common.encoders.settings import BUILT_IN, DEFAULT_ENCODER
from sfumato_common.generators import NETWORKS
from sfumato_common.generators.components import component_count, component_shares, condition
from sfumato_common.generators.spectral.whitening import (
    bits_per_dim,
    dequantise,
    spectral_model,
    standard_normal_log_prob,
)
from sfumato_common.generators.weights import load_network
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.metrics.calibration import brier_score, calibration_error
from sfumato_common.metrics.features import encoded_features, random_features, random_grid
from sfumato_common.metrics.fidelity import frechet_distance, kernel_distance
from sfumato_common.metrics.network import fit_network
from sfumato_common.metrics.prdc import neighbourhood
from sfumato_common.metrics.structure import structure_distance
from sfumato_common.metrics.tstr import balanced_accuracy, fit_linear, macro_auc, patient_interval
from sfumato_common.study.plan import Plan
from sfumato_common.types import Arrays, ByteImages, to_unit_range

Float64 = npt.NDArray[np.float64]
Scores = dict[str, float]
NEIGHBOURS = 5
GIVEN_SIDE = 64
GIVEN_SCALED = 1_000  # images whose deviations are the units of a given space: its network takes hundredths of a second
REFERENCE_SEED = 1_000  # of the net whose features compare sets: none of the seeds that are scored


@dataclass(frozen=True, eq=False)
class Reference:
    """Test images in all feature spaces, and the maps there, in units of the real training images' deviations."""

    maps: dict[str, Callable[[ByteImages], Float64]]
    test: dict[str, Float64]


@lru_cache(maxsize=1)
def reference_of(cohort: BenchCohort) -> Reference:
    """The random and the site-trained feature space, whose net has seen training images only.

    And that of the default encoder, where it is installed: it has seen none of them.
    """
    images, labels, _ = pooled(cohort.train)
    trained = fit_network(images, labels, len(cohort.labels), REFERENCE_SEED)
    spaces: dict[str, Callable[[ByteImages], Float64]] = {"random": random_features, "trained": trained.features}
    if default_is_installed():
        spaces["given"] = partial(encoded_features, encoder=default_encoder(cohort.size))
    some = np.random.default_rng(REFERENCE_SEED).permutation(len(images))[:GIVEN_SCALED]
    maps = {name: _standardised(space, images[some] if name == "given" else images) for name, space in spaces.items()}
    holdout_images = pooled(cohort.test)[0]
    return Reference(maps, {name: space(holdout_images) for name, space in maps.items()})


def default_encoder(size: int) -> Encoder:
    """The default encoder on images as large as they are, 64 pixels at most: a tenth of the work of its own 224."""
    terms = BUILT_IN[DEFAULT_ENCODER].model_copy(update={"size": min(size, GIVEN_SIDE)})
    return Encoders(ENCODERS, {"default": terms}).load("default")


@dataclass(frozen=True, eq=False)
class Standardised:
    """A feature space in units of `scale` about `centre`."""

    space: Callable[[ByteImages], Float64]
    centre: Float64
    scale: Float64

    def __call__(self, images: ByteImages) -> Float64:
        """Features [N, F]."""
        return (self.space(images) - self.centre) / self.scale


def _standardised(space: Callable[[ByteImages], Float64], images: ByteImages) -> Standardised:
    features = space(images)
    centre, scale = features.mean(axis=0), features.std(axis=0)
    # a feature that real images hardly move would otherwise drown all others as soon as synthetic ones move it
    return Standardised(space, centre, np.maximum(scale, 0.1 * np.median(scale[scale > 0])))


def scores_of(cohort: BenchCohort, images: ByteImages, labels: npt.NDArray[np.int64], seed: int, count: int) -> Scores:
    """Every score of a labelled set, real or synthetic; figures that a cohort cannot have are left out.

    Utility uses all of the set; fidelity a random `count` of it, because distances and recall depend on the number.
    """
    classes = len(cohort.labels)
    result = utility_of(cohort, fit_network(images, labels, classes, seed).probabilities)
    linear = fit_linear(random_grid(images), labels, classes)
    real, truth, _ = pooled(cohort.test)
    result["linear auc"] = macro_auc(linear.probabilities(random_grid(real)), truth)
    chosen = np.random.default_rng(seed).permutation(len(images))[:count]
    result |= fidelity_of(reference_of(cohort), images[chosen])
    result["structure"] = structure_distance(images[chosen], real)
    # held-out patients of the collection that trained: those of a shifted test set lie farther off
    result |= nearness(images[chosen], pooled(cohort.train)[0], pooled(cohort.parts[cohort.views[0]])[0])
    return {name: value for name, value in result.items() if math.isfinite(value)}


def utility_of(cohort: BenchCohort, probabilities: Callable[[ByteImages], Float64]) -> Scores:
    """Scores of a classifier on the test patients: pooled with its interval over patients, and by site."""
    images, labels, patients = pooled(cohort.test)
    found = probabilities(images)
    low, high = patient_interval(
        lambda rows: macro_auc(found[rows], labels[rows]), patients, np.random.default_rng(0), draws=200
    )
    result = {
        "auc": macro_auc(found, labels),
        "auc low": low,
        "auc high": high,
        "bal. acc.": balanced_accuracy(found, labels),
        "ECE": calibration_error(found, labels),
        "Brier": brier_score(found, labels),
    }
    if len(cohort.test) > 1:
        first = 0
        for site, part in cohort.test.items():
            rows = slice(first, first + len(part.labels))
            result[f"auc {site}"], first = macro_auc(found[rows], labels[rows]), rows.stop
    return result


def fidelity_of(reference: Reference, images: ByteImages) -> Scores:
    """Distances to the test images in all spaces; neighbourhoods in the site-trained one, and in a given one."""
    result = {}
    for name, space in reference.maps.items():
        features = space(images)
        result[f"FD {name}"] = frechet_distance(features, reference.test[name])
        result[f"KID {name}"] = kernel_distance(features, reference.test[name])
        if name != "random" and min(len(features), len(reference.test[name])) > NEIGHBOURS:
            found = asdict(neighbourhood(reference.test[name], features, NEIGHBOURS))
            result |= {key if name == "trained" else f"{key} {name}": value for key, value in found.items()}
    return result


def held_out_bits(plan: Plan, kind: str, arrays: Arrays, cohort: BenchCohort) -> float:
    """Bits per dimension of test images, given their labels, under the spectral model or the flow (exact).

    Where the plan fits sites apart, a label's density is the mixture of its sites' by their released shares.
    """
    images, labels, _ = pooled(cohort.test)
    x, y = torch.from_numpy(to_unit_range(images)), torch.from_numpy(labels)
    classes, shares = len(plan.labels), torch.from_numpy(component_shares(plan, arrays)).log()
    by_site = []
    spectral = spectral_model(plan, arrays)
    flow = load_network("flow", NETWORKS["flow"], plan, arrays) if kind == "flow" else None
    spread = dequantise(x, TorchDraws(torch.Generator().manual_seed(0)))
    with torch.no_grad():
        for first in range(0, component_count(plan), classes):
            component = y + first
            u, log_det = spectral.encode(spread, component)
            if flow is not None:
                u, more = flow(u, condition(plan, component))
                log_det = log_det + more
            by_site.append(standard_normal_log_prob(u) + log_det + shares[component])
        label_shares = torch.stack([shares[k::classes].logsumexp(0) for k in range(classes)])
        log_prob = torch.stack(by_site).logsumexp(0) - label_shares[y]
        return float(bits_per_dim(log_prob, x[0].numel()).mean())
