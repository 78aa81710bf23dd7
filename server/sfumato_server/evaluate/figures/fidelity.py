"""How far the set is from real images as a distribution, in every feature space, beside real images' own distance.

Spaces: random convolutions, which anyone can compute; the features of the classifier that real images trained; and
given encoders by file and hash. As many images of each are compared: a Frechet distance depends on their number.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from sfumato_common.metrics.features import encoded_features, random_features
from sfumato_common.metrics.fidelity import drawn_kernel_distances, frechet_distance, kernel_distance
from sfumato_common.metrics.prdc import balls, neighbourhood_of
from sfumato_common.metrics.structure import structure_distance
from sfumato_common.types import ByteImages
from sfumato_server.evaluate.evaluation import Evaluation, Float64
from sfumato_server.evaluate.figures.figure import Figure
from sfumato_server.evaluate.rows import Estimate, Row, jackknifed_row, row
from sfumato_server.evaluate.settings import GROUPS
from sfumato_server.evaluate.training import Training

Space = Callable[[ByteImages], Float64]
_BALLS = 5
_SHARES = ("precision", "recall", "density", "coverage")


def spaces(evaluation: Evaluation) -> dict[str, Space]:
    """Every feature space by its name, images [N, S, S(, 3)] to features [N, d]."""
    found: dict[str, Space] = {"random convolutions": partial(random_features, device=evaluation.settings.device)}
    judge = evaluation.trainings.judge
    if judge is not None:
        found[f"{evaluation.trained_space.family} of real images"] = judge.features
    for name, encoder in evaluation.settings.encoders.items():
        found[name] = partial(encoded_features, encoder=encoder)
    return found


def _measure(evaluation: Evaluation) -> list[Row]:
    if evaluation.too_few:
        return [Row("fidelity", "distances", note=evaluation.too_few)]
    made, test, train = evaluation.compared
    found = [row for name, space in spaces(evaluation).items() for row in _in_space(evaluation, name, space)]
    nearness = [Estimate(structure_distance(images.pixels, test.pixels), np.zeros(0)) for images in (made, train)]
    note = "no interval: texture's direction, 0 for one distribution, up to 1"
    found.append(row("fidelity", "structure: energy distance", nearness[0], nearness[1], note=note))
    return found


def _in_space(evaluation: Evaluation, name: str, space: Space) -> list[Row]:
    made, test, train = evaluation.compared
    synthetic, real, other = (space(images.pixels) for images in (made, test, train))
    # one unit for all spaces: the tested images' features have mean 0 and, on average, variance 1
    centre, unit = real.mean(axis=0), max(float(np.sqrt(real.var(axis=0).mean())), 1e-12)
    synthetic, real, other = ((features - centre) / unit for features in (synthetic, real, other))
    kernels = [_kernel(evaluation, features, real) for features in (synthetic, other)]
    return [
        _frechet(evaluation, name, synthetic, real, other),
        row("fidelity", f"{name}: kernel distance x 1000", kernels[0], kernels[1], "difference"),
        *_neighbourhoods(evaluation, name, synthetic, real, other),
    ]


def _frechet(evaluation: Evaluation, name: str, synthetic: Float64, real: Float64, other: Float64) -> Row:
    """Frechet distance a feature, real images' own, and their ratio."""

    def figure(features: Float64, beside: Float64) -> float:
        return frechet_distance(features, beside) / int(features.shape[1])

    made, test, train = (evaluation.dealt(images.patients) for images in evaluation.compared)
    left_out = [
        (figure(synthetic[made != at], real[test != at]), figure(other[train != at], real[test != at]))
        for at in range(GROUPS)
    ]
    return jackknifed_row(
        "fidelity", f"{name}: Frechet distance", (figure(synthetic, real), figure(other, real)), left_out
    )


def _kernel(evaluation: Evaluation, features: Float64, real: Float64) -> Estimate:
    rng, count = evaluation.rng(4), len(features)
    redrawn = (rng.integers(0, count, count) for _ in range(evaluation.settings.draws))
    draws = zip(redrawn, evaluation.draws(evaluation.compared[1].patients), strict=True)
    found = np.array(list(drawn_kernel_distances(features, real, draws)))
    return Estimate(1000.0 * kernel_distance(features, real), 1000.0 * found)


def _neighbourhoods(evaluation: Evaluation, name: str, synthetic: Float64, real: Float64, other: Float64) -> list[Row]:
    """Precision, recall, density and coverage; balls stay as all records drew them."""
    groups = evaluation.dealt(evaluation.compared[1].patients)
    tables = [balls(real, features, _BALLS) for features in (synthetic, other)]
    whole = [neighbourhood_of(*pair, _BALLS) for pair in tables]
    left_out = [
        [neighbourhood_of(first[groups != at], second[groups != at], _BALLS) for first, second in tables]
        for at in range(GROUPS)
    ]
    found = []
    for share in _SHARES:
        values = getattr(whole[0], share), getattr(whole[1], share)
        others = [(getattr(one, share), getattr(two, share)) for one, two in left_out]
        found.append(jackknifed_row("fidelity", f"{name}: {share}", values, others))
    return found


def _needs(evaluation: Evaluation) -> list[Training]:
    return [evaluation.trained_space]


FIDELITY = Figure(
    "fidelity",
    "Likeness",
    "How far the set as a whole is from the tested patients' images, beside how far real training images are.",
    _measure,
    _needs,
)
