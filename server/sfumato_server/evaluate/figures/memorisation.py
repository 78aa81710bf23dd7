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
from sfumato_server.evaluate.rows import Comparison, Estimate, Row, row

_NEAREST = 0.01
# a copy is nearer than this part of the distance that half of the strangers have
_COPY = 0.1
# nearest neighbours vary more than samples drawn with replacement show: at .025 a chance split is accused in .045
_SURE = 0.005
_SAID = "memorisation found"
_NEARER = "below 1 is nearer than strangers"
_LINES: tuple[tuple[str, Comparison, str], ...] = (
    ("distance to the nearest training image, median", "ratio", _NEARER),
    ("distance to the nearest training image, 1st percentile", "ratio", _NEARER),
    (
        "share nearer than all but 1 % of strangers",
        "difference",
        "nearer than strangers are: copies, or images plainer than real ones",
    ),
    ("share of near copies of training images", "difference", _SAID),
)


def _measure(evaluation: Evaluation) -> list[Row]:
    made = evaluation.made.images.some(evaluation.settings.compared, evaluation.rng(2, 0))
    seen, test = evaluation.real.seen, evaluation.real.test
    own, control = nearest_distances(made.pixels, seen.pixels), nearest_distances(test.pixels, seen.pixels)
    copy, rng = _COPY * float(np.median(control)), evaluation.rng(5)
    drawn = [
        _numbers(own[rng.integers(0, len(own), len(own))], control[rows], copy)
        for rows in evaluation.draws(test.patients)
    ]
    samples, values = np.array(drawn), _numbers(own, control, copy)
    found = []
    for at, (of, comparison, said) in enumerate(_LINES):
        mine, strangers = (Estimate(values[column], samples[:, column]) for column in (2 * at, 2 * at + 1))
        nearer = comparison == "difference" and (mine - strangers).interval[0] > 0.0
        note = said if nearer or comparison == "ratio" else ""
        found.append(row("memorisation", of, mine, strangers, comparison, note=note))
    return [*found, _apart(evaluation, made)]


def _numbers(own: Floats, control: Floats, copy: float) -> list[float]:
    """Of each of `_LINES`, the set's number and that of strangers, from their distances to the nearest in training."""
    bound = float(np.quantile(control, _NEAREST))
    found = [np.quantile(distances, level) for level in (0.5, _NEAREST) for distances in (own, control)]
    found += [(distances < least).mean() for least in (bound, copy) for distances in (own, control)]
    return [float(number) for number in found]


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
