"""The one contract of attacks on candidates: who was in the cohort, told from people who were not (Yeom et al. 2018).

An attack sees training patients, holdout patients and what an outsider would know of a release, and gives every person
a score: the higher, the more it takes the person for one whose images are behind the release. Holdout patients cannot
be, so the scores tell nothing where both sides score alike. Scores stay in the site; a record says how far they differ.

Attacks treat members and holdout patients alike: neither which side a person is on, nor how many there are of either,
has a part in a score. So members and holdout patients of a release that depends on neither are exchangeable, and every
figure is what chance gives (`tests/client/test_attacks.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sfumato_client.audit.attacks.intervals import (
    Interval,
    area,
    area_interval,
    beyond,
    beyond_tail,
    least_area,
    least_share,
    share_interval,
)
from sfumato_common.encoders.encoder import Encoder
from sfumato_common.errors import DataError
from sfumato_common.memory import budget, rows_at_once
from sfumato_common.metrics.nearest import Floats
from sfumato_common.types import ByteImages

Indices = npt.NDArray[np.int64]
RATES = (0.01, 0.001)
FEWEST_PATIENTS = 2
# an attack that could not tell an AUC of 0.6 from chance in 8 of 10 cases is underpowered
_WORTH_FINDING = 0.6
_SEED = 20231127
_LARGEST_CHUNK = 2**27  # bytes: larger chunks are no faster


@dataclass(frozen=True, eq=False)
class People:
    """Images [N, S, S(, 3)] of one side, whose they are [N], and their classes [N]."""

    images: ByteImages = field(repr=False)
    patient_index: Indices = field(repr=False)
    labels: Indices = field(repr=False)

    @property
    def patients(self) -> int:
        """How many people they are of."""
        return len(np.unique(self.patient_index))

    def per_patient(self, scores: Floats) -> Floats:
        """Scores [N] of images -> [P] of patients, in the order of their indices: the highest of each one's images."""
        order = np.argsort(self.patient_index, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(self.patient_index[order]) > 0])
        return np.maximum.reduceat(scores[order], starts)


@dataclass(frozen=True, eq=False)
class Known:
    """What an outsider knows of a release: its images [N, S, S(, 3)] and their classes [N], and how they were made.

    `behind` are the numbers of the training patients behind each image, where that is known: an outsider knows none.
    `encoder` is a public network that the site's policy names.
    """

    candidates: ByteImages = field(repr=False)
    labels: Indices = field(repr=False)
    behind: Sequence[Indices] = field(default=(), repr=False)
    encoder: Encoder | None = field(default=None, repr=False)


# scores of members and of holdout patients, one each; patients of whom an attack learnt are left out on both sides
Scores = tuple[Floats, Floats]


@dataclass(frozen=True)
class Attack:
    """One line of the table: what it asks, why it cannot be tried on these ('' where it can), and how it scores."""

    name: str
    question: str
    obstacle: Callable[[People, People, Known], str]
    score: Callable[[People, People, Known], Scores]


@dataclass(frozen=True)
class AttackResult:
    """What an attack found of a candidate set `of` (method and model), for the site alone.

    `auc` with its 95 % interval; `found_at`: true positive rates at false positive rates (Carlini et al. 2022) with
    Clopper-Pearson intervals. Where the holdout patients are too few for a rate the share is that above all of them,
    and its interval begins at 0. `members` and `holdout` count patients who were scored. `underpowered` is '' or says
    what could at best be told from chance. `stand_out` counts training patients who score higher than all holdout
    patients and than the tail of all scores explains: a handful of copies shows there alone. The scores [members],
    [holdout] are in no file.
    """

    name: str
    question: str
    of: str
    auc: float
    auc_interval: Interval
    found_at: dict[float, tuple[float, Interval]]
    members: int
    holdout: int
    underpowered: str
    stand_out: int = 0
    member_scores: Floats = field(repr=False, compare=False, default_factory=lambda: np.zeros(0, np.float32))
    holdout_scores: Floats = field(repr=False, compare=False, default_factory=lambda: np.zeros(0, np.float32))

    def to_json(self) -> dict[str, Any]:
        """For the site's local report: no score of any one person."""
        return {
            "name": self.name,
            "question": self.question,
            "of": self.of,
            "auc": round(self.auc, 4),
            "auc_interval": _rounded(self.auc_interval),
            "found_at": {
                str(rate): {"share": round(share, 4), "interval": _rounded(interval)}
                for rate, (share, interval) in self.found_at.items()
            },
            "members": self.members,
            "holdout": self.holdout,
            "underpowered": self.underpowered,
            "stand_out": self.stand_out,
        }


def on_both(score: Callable[[ByteImages, Indices], Floats]) -> Callable[[People, People], Scores]:
    """Scores by patient of a function of all people's images [N, S, S(, 3)] and patients [N], which knows no side.

    Patients of the two sides are told apart by their numbers: holdout patients are numbered after the members.
    """

    def scores(members: People, holdout: People) -> Scores:
        first = int(members.patient_index.max()) + 1
        patients = np.concatenate([members.patient_index, first + holdout.patient_index])
        found = score(np.concatenate([members.images, holdout.images]), patients)
        count = len(members.images)
        return members.per_patient(found[:count]), holdout.per_patient(found[count:])

    return scores


def rows_of_chunk(row_bytes: int, rows: int) -> int:
    """How many of `rows` rows of so many bytes are computed at once: 128 MiB, or a quarter of what is allowed if less.

    So memory does not grow with the number of candidates, nor with the machine's.
    """
    return rows_at_once(row_bytes * max(4, budget() // _LARGEST_CHUNK), max(1, rows))


def candidate_chunks(images: ByteImages) -> Iterator[ByteImages]:
    """Candidates [N, S, S(, 3)] a chunk at a time: memory does not grow with their number."""
    size = rows_of_chunk(24 * int(np.prod(images.shape[1:])), len(images))
    for at in range(0, len(images), size):
        yield images[at : at + size]


def no_obstacle(members: People, holdout: People, known: Known) -> str:
    """For attacks that need nothing but images."""
    del members, holdout, known
    return ""


def measure(attack: Attack, of: str, members: People, holdout: People, known: Known) -> AttackResult:
    """What `attack` finds. Raises DataError, with the reason, where it cannot be tried or a score is not finite."""
    obstacle = attack.obstacle(members, holdout, known)
    if obstacle:
        raise DataError(f"the attack '{attack.name}' cannot be tried on {of}: {obstacle}")
    inside, outside = attack.score(members, holdout, known)
    if min(len(inside), len(outside)) < FEWEST_PATIENTS:
        raise DataError(f"the attack '{attack.name}' cannot be tried on {of}: fewer than two patients on a side")
    if not (np.isfinite(inside).all() and np.isfinite(outside).all()):
        raise DataError(f"the attack '{attack.name}' gave a score of {of} that is not finite")
    return AttackResult(
        attack.name,
        attack.question,
        of,
        area(inside, outside),
        # the bootstrap of the steward's intervals: no noise, and the same answer to the same question
        area_interval(inside, outside, np.random.default_rng(_SEED)),
        {rate: _found_at(rate, inside, outside) for rate in RATES},
        len(inside),
        len(outside),
        underpowered(len(inside), len(outside)),
        beyond_tail(inside, outside),
        inside,
        outside,
    )


def underpowered(members: int, holdout: int) -> str:
    """What so many patients could at best tell from chance; '' where that is an AUC of 0.6 and a rate at 1 %."""
    least, rate = least_area(members, holdout), 1.0 / (holdout + 1)
    if least <= _WORTH_FINDING and rate <= RATES[0]:
        return ""
    share = least_share(max(rate, RATES[0]), members, holdout)
    return (
        f"with {members} training and {holdout} holdout patients an AUC under {least:.2f} is not told from chance, "
        f"nor a true positive rate under {share:.2f} at a false positive rate of {max(rate, RATES[0]):.3f}"
    )


def _found_at(rate: float, inside: Floats, outside: Floats) -> tuple[float, Interval]:
    limit = np.sort(outside)[-beyond(rate, len(outside))]
    hits = int((inside > limit).sum())
    low, high = share_interval(hits, len(inside))
    return hits / len(inside), (low if rate * (len(outside) + 1) >= 1.0 else 0.0, high)


def _rounded(interval: Interval) -> list[float]:
    return [round(value, 4) for value in interval]
