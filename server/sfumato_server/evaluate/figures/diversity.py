"""Whether the set repeats itself: equal pixels in all of it, near repeats and effective numbers in a sample."""

from __future__ import annotations

import numpy as np

from sfumato_common.metrics.diversity import apart_distances, usual_distance, vendi_score
from sfumato_common.metrics.features import random_features
from sfumato_server.evaluate.evaluation import Evaluation, Float64
from sfumato_server.evaluate.figures.figure import Figure
from sfumato_server.evaluate.rows import Estimate, Row, jackknifed_row, row
from sfumato_server.evaluate.settings import GROUPS

_NEAREST = 0.01


def _measure(evaluation: Evaluation) -> list[Row]:
    synthetic, real = (
        random_features(images.pixels, evaluation.settings.device) for images in evaluation.compared[::2]
    )
    repeated = evaluation.made.repeated
    exact = row(
        "diversity",
        "share of the set with the pixels of another image",
        Estimate(repeated / evaluation.made.count, np.zeros(0)),
        note=f"{repeated:,} of all {evaluation.made.count:,} images",
    )
    if evaluation.too_few:
        return [exact, Row("diversity", "distances", note=evaluation.too_few)]
    return [exact, _near(evaluation, synthetic, real), _effective(evaluation, synthetic, real)]


def _near(evaluation: Evaluation, synthetic: Float64, real: Float64) -> Row:
    """Share of images nearer to another of the set than all but 1 % of real images to another patient's."""
    made, _, train = evaluation.compared
    own, theirs = apart_distances(synthetic, made.patients), apart_distances(real, train.patients)
    bound = float(np.quantile(theirs, _NEAREST))
    rng, drawn = evaluation.rng(8), []
    for rows in evaluation.draws(train.patients):
        limit = float(np.quantile(theirs[rows], _NEAREST))
        drawn.append((_below(own[rng.integers(0, len(own), len(own))], limit), _below(theirs[rows], limit)))
    samples = np.array(drawn)
    estimates = Estimate(_below(own, bound), samples[:, 0]), Estimate(_below(theirs, bound), samples[:, 1])
    return row("diversity", "share nearer to another than all but 1 % of real images", *estimates, "difference")


def _below(distances: Float64, bound: float) -> float:
    return float((distances < bound).mean())


def _effective(evaluation: Evaluation, synthetic: Float64, real: Float64) -> Row:
    made, _, train = evaluation.compared
    scale = usual_distance(real)
    sets = ((synthetic, evaluation.dealt(made.patients)), (real, evaluation.dealt(train.patients)))
    values = vendi_score(synthetic, scale), vendi_score(real, scale)
    left_out = [[vendi_score(features[groups != at], scale) for features, groups in sets] for at in range(GROUPS)]
    note = f"Vendi score of {len(synthetic):,} images each"
    return jackknifed_row(
        "diversity", "effective number of images", values, [(one, two) for one, two in left_out], note=note
    )


DIVERSITY = Figure(
    "diversity",
    "Diversity",
    "Whether the set holds as many different images as it seems to, beside as many real ones.",
    _measure,
)
