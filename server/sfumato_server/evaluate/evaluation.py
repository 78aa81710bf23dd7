"""What all figures are made from: the two sets, the classifiers, and samples of patients that every figure shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sfumato_common.metrics.tstr import patient_draws
from sfumato_server.evaluate.images import Images, Labels, Rows
from sfumato_server.evaluate.index import Real
from sfumato_server.evaluate.made import Made
from sfumato_server.evaluate.rows import Estimate
from sfumato_server.evaluate.settings import GROUPS, Settings
from sfumato_server.evaluate.training import Training, Trainings

Float64 = npt.NDArray[np.float64]
# a figure of probabilities [N, K] and labels [N]
Score = Callable[[Float64, Labels], float]
_SEED = 20_261_128  # public; which images are compared, and which patients an interval draws


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A published set beside real images, under some settings."""

    made: Made
    real: Real
    settings: Settings
    trainings: Trainings = field(init=False)

    def __post_init__(self) -> None:
        trainings = Trainings(
            self.settings, self.made.images, self.real.train, self.real.test.pixels, self.classes, self.trained_space
        )
        object.__setattr__(self, "trainings", trainings)

    @property
    def classes(self) -> int:
        """How many labels the set has."""
        return len(self.made.plan.labels)

    @property
    def trained_space(self) -> Training:
        """The network, trained on real images, in which sets are compared too."""
        return Training(self.settings.families[0], 0, real=1.0)

    def rng(self, *words: int) -> np.random.Generator:
        """Numbers that are the same at every run."""
        return np.random.default_rng([_SEED, *words])

    def score(self, training: Training, score: Score, rows: Rows | None = None) -> Estimate:
        """Mean of `score` over the seeds of a training, on all tested images or on `rows`, with samples of patients.

        The samples depend on the rows alone, so that two trainings' figures are paired.
        """
        mean, patients = self._mean(training, score, rows)
        return Estimate(mean(slice(None)), np.array([mean(drawn) for drawn in self.draws(patients)]))

    def left_out(self, training: Training, score: Score, rows: Rows | None = None) -> tuple[float, list[float]]:
        """The same mean, and what it is without each of the groups of `dealt`."""
        mean, patients = self._mean(training, score, rows)
        groups = self.dealt(patients)
        return mean(slice(None)), [mean(groups != at) for at in range(GROUPS)]

    def _mean(self, training: Training, score: Score, rows: Rows | None) -> tuple[Callable[[Any], float], Labels]:
        """A function of rows of `rows`, and the patients who own them."""
        test, found = self.real.test, list(self.trainings.over_seeds(training, self.settings.seeds))
        if rows is not None:
            test, found = test.part(rows), [one[rows] for one in found]
        return lambda some: float(np.mean([score(one[some], test.labels[some]) for one in found])), test.patients

    def paired(self, first: Training, second: Training, score: Score) -> list[float]:
        """Difference of `score` between two trainings, seed by seed."""
        one, other = (self.trainings.over_seeds(each, self.settings.seeds) for each in (first, second))
        labels = self.real.test.labels
        return [score(a, labels) - score(b, labels) for a, b in zip(one, other, strict=True)]

    def draws(self, patients: Labels) -> Iterator[Rows]:
        """Rows of every sample of whole patients, with replacement."""
        return patient_draws(patients, self.rng(1), self.settings.draws)

    @cached_property
    def compared(self) -> tuple[Images, Images, Images]:
        """As many synthetic, tested and training images, to be compared with each other as sets."""
        sets = (self.made.images, self.real.test, self.real.train)
        most = min(self.settings.compared, *(len(images) for images in sets))
        first, second, third = (images.some(most, self.rng(2, at)) for at, images in enumerate(sets))
        return first, second, third

    @property
    def too_few(self) -> str:
        """Why the sets are not compared; empty where they are."""
        count, least = len(self.compared[0]), 2 * GROUPS
        return f"too few images: {count} of each set, and {least} are needed" if count < least else ""

    def dealt(self, patients: Labels) -> Labels:
        """A group of the jackknife, 0 to GROUPS - 1, for each row: whole patients, dealt at random."""
        people = np.unique(patients)
        dealt = self.rng(3).permutation(len(people)) % GROUPS
        return np.asarray(dealt[np.searchsorted(people, patients)])
