"""What ordinary judges say of one labelled set (metrics/judges.py), on patients whom nobody trained on.

Two views of every cohort: `val`, patients of the collection that trained, kept apart; and `test`, the official set,
which for Guangzhou is shifted: real training images reach .97 on the one and .87 to .91 on the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from cohorts import BenchCohort, pooled

from sfumato_client.dataset.cohort import Cohort
from sfumato_common.generators.device import training_device
from sfumato_common.metrics.judges import JUDGES, fit_judge
from sfumato_common.metrics.nearest import nearest_distances
from sfumato_common.metrics.network import fit_network
from sfumato_common.metrics.tstr import macro_auc, patient_interval
from sfumato_common.types import ByteImages

Float64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Probabilities = Callable[[ByteImages], Float64]
Scores = dict[str, float]
# the bench's own classifier beside the ordinary ones, and the judge that is asked of each site alone
BENCH, ALONE = "bench", "cnn"


def fit(name: str, images: ByteImages, labels: Labels, classes: int, seed: int) -> Probabilities:
    """The judge of that name, on the accelerator where there is one: of `JUDGES`, or the bench's own classifier."""
    if name == BENCH:
        return fit_network(images, labels, classes, seed, device=training_device()).probabilities
    return fit_judge(name, images, labels, classes, seed, device=training_device()).probabilities


def judged(
    cohort: BenchCohort,
    images: ByteImages,
    labels: Labels,
    homes: Sequence[str] | npt.NDArray[np.str_] | None,
    seed: int,
    names: Sequence[str] = (BENCH, *JUDGES),
    *,
    alone: bool = True,
) -> Scores:
    """AUC of each judge by view: pooled with its patients' interval, by site, and of a site's own set on its patients.

    `homes` [N] names the site that each image stands for, None where sets stand for no site. The last figures need a
    network a site and are left out without `alone`. Figures that a cohort cannot have are left out.
    """
    classes = len(cohort.labels)
    result: Scores = {}
    for name in names:
        probabilities = fit(name, images, labels, classes, seed)
        for view in cohort.views:
            result |= _on_view(f"{name} {view}", probabilities, cohort.parts[view])
    if alone and ALONE in names and homes is not None:
        result |= _alone(cohort, images, labels, np.asarray(homes), seed)
    return {name: value for name, value in result.items() if math.isfinite(value)}


def _on_view(name: str, probabilities: Probabilities, parts: dict[str, Cohort]) -> Scores:
    images, labels, patients = pooled(parts)
    found = probabilities(images)
    rng = np.random.default_rng(0)
    low, high = patient_interval(lambda rows: macro_auc(found[rows], labels[rows]), patients, rng, draws=200)
    result = {name: macro_auc(found, labels), f"{name} low": low, f"{name} high": high}
    first = 0
    for site, part in parts.items():
        rows = slice(first, first + len(part.labels))
        first = rows.stop
        if len(parts) > 1:
            result[f"{name} {site}"] = macro_auc(found[rows], labels[rows])
    return result


def _alone(cohort: BenchCohort, images: ByteImages, labels: Labels, homes: npt.NDArray[np.str_], seed: int) -> Scores:
    """Of every site whose own part and patients have all classes: a judge of that part, on that site's own patients."""
    result: Scores = {}
    for site in cohort.train:
        own = homes == site
        seen = [labels[own], *(cohort.parts[view][site].labels for view in cohort.views if site in cohort.parts[view])]
        # a network takes a minute: none is trained for a figure that cannot be
        if len(seen) <= len(cohort.views) or any(len(np.unique(found)) < len(cohort.labels) for found in seen):
            continue
        probabilities = fit(ALONE, images[own], labels[own], len(cohort.labels), seed)
        for view in cohort.views:
            shown, truth, _ = cohort.parts[view][site].everything()
            result[f"{ALONE} {view} own {site}"] = macro_auc(probabilities(shown), truth)
    return result


def nearness(images: ByteImages, train: ByteImages, held_out: ByteImages) -> Scores:
    """Distances to the nearest training image over those of held-out patients' images: memorisation is below 1.

    `nearest`, of the medians; `nearest 1 %`, of the first percentiles, which a few copies move at once.
    """
    found, control = nearest_distances(images, train), nearest_distances(held_out, train)
    return {
        "nearest": float(np.median(found) / np.median(control)),
        "nearest 1 %": float(np.quantile(found, 0.01) / np.quantile(control, 0.01)),
    }
