"""Whether synthetic images are nearer to patients who may have trained than strangers are (Yale et al. 2019).

The control are the tested patients, whom nobody trained on: they are as near to training patients as strangers are.
Privacy is what the ledgers say; this can only find that something went wrong.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sfumato_common.metrics.nearest import Floats, nearest_distances, patient_distances
from sfumato_server.evaluate.evaluation import Evaluation
from sfumato_server.evaluate.figures.figure import Figure
from sfumato_server.evaluate.images import Images
from sfumato_server.evaluate.rows import Estimate, Row, row

_NEAREST = 0.01
# a copy is nearer than this part of the distance that half of the strangers have
_COPY = 0.1
# nearest neighbours vary more than samples drawn with replacement show: at .025 a chance split is accused in .045
_SURE = 0.005
_SAID = "memorisation found"
_NEARER = "nearer than strangers are: copies, or images plainer than real ones"


def _measure(evaluation: Evaluation) -> list[Row]:
    made = evaluation.made.images.some(evaluation.settings.compared, evaluation.rng(2, 0))
    seen, test = evaluation.real.seen, evaluation.real.test
    own, control = nearest_distances(made.pixels, seen.pixels), nearest_distances(test.pixels, seen.pixels)
    rows = list(evaluation.draws(test.patients))
    rng = evaluation.rng(5)
    pairs = [(own[rng.integers(0, len(own), len(own))], control[drawn]) for drawn in rows]
    found = [
        _quantile("distance to the nearest training image, median", 0.5, own, control, pairs),
        _quantile("distance to the nearest training image, 1st percentile", _NEAREST, own, control, pairs),
    ]
    usual = float(np.median(control))
    for of, bound, quantile in (
        ("share nearer than all but 1 % of strangers", float(np.quantile(control, _NEAREST)), _NEAREST),
        ("share of near copies of training images", _COPY * usual, None),
    ):
        found.append(_share(of, bound, quantile, own, control, pairs))
    return [*found, _apart(evaluation, made)]


def _quantile(of: str, level: float, own: Floats, control: Floats, pairs: list[tuple[Floats, Floats]]) -> Row:
    drawn = np.array([[np.quantile(first, level), np.quantile(second, level)] for first, second in pairs])
    values = np.quantile(own, level), np.quantile(control, level)
    estimates = [Estimate(float(value), drawn[:, at]) for at, value in enumerate(values)]
    return row("memorisation", of, estimates[0], estimates[1], "ratio", note="below 1 is nearer than strangers")


def _share(
    of: str, bound: float, quantile: float | None, own: Floats, control: Floats, pairs: list[tuple[Floats, Floats]]
) -> Row:
    """Share of images nearer than a bound, which is drawn anew with the strangers where it is a quantile of theirs."""
    bounds = [bound if quantile is None else float(np.quantile(second, quantile)) for _, second in pairs]
    mine = Estimate(
        _nearer(own, bound), np.array([_nearer(first, at) for (first, _), at in zip(pairs, bounds, strict=True)])
    )
    strangers = np.array([_nearer(second, at) for (_, second), at in zip(pairs, bounds, strict=True)])
    theirs = Estimate(_nearer(control, bound), strangers)
    excess = mine - theirs
    said = _SAID if quantile is None else _NEARER
    return row("memorisation", of, mine, theirs, "difference", excess, said if excess.interval[0] > 0.0 else "")


def _nearer(distances: Floats, bound: float) -> float:
    return float((distances < bound).mean())


def _apart(evaluation: Evaluation, made: Images) -> Row:
    """Share of images nearer to some training patient than to any tested one, of as many patients: a half by chance."""
    people = min(evaluation.settings.compared, evaluation.real.seen.people(), evaluation.real.test.people())
    tables = [
        _of_patients(images, people, made, evaluation.rng(6, at))
        for at, images in enumerate((evaluation.real.seen, evaluation.real.test))
    ]
    rng = evaluation.rng(7)
    drawn = [
        _first_nearer(*(table[:, rng.integers(0, people, people)] for table in tables))
        for _ in range(evaluation.settings.draws)
    ]
    share = Estimate(_first_nearer(*tables), np.array(drawn))
    found = float(np.quantile(share.draws, _SURE)) > 0.5
    note = f"{_SAID}, unless the split is no chance one" if found else "a half by chance"
    return row("memorisation", f"share nearer to {people} training than to {people} tested patients", share, note=note)


def _of_patients(images: Images, people: int, made: Images, rng: np.random.Generator) -> Floats:
    """Distances [N, people] to one image each of so many patients: more images of one would be nearer by number."""
    owners, first = np.unique(images.patients, return_index=True)
    chosen = np.sort(rng.choice(len(owners), people, replace=False))
    return patient_distances(made.pixels, images.pixels[first[chosen]], np.arange(people))


def _first_nearer(first: Floats, second: Floats) -> float:
    one, other = first.min(axis=1), second.min(axis=1)
    ahead: npt.NDArray[np.float64] = (one < other) + 0.5 * (one == other)
    return float(ahead.mean())


MEMORISATION = Figure(
    "memorisation",
    "Memorisation",
    "Whether synthetic images lie nearer to patients that the study may have trained on than tested patients do.",
    _measure,
)
