"""Which classifiers an evaluation trains, each once, and what they say of the tested patients."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sfumato_common.command_line import duration_text
from sfumato_common.metrics.judges import Judge, fit_judge
from sfumato_common.types import ByteImages
from sfumato_server.evaluate.images import Images, Labels, together
from sfumato_server.evaluate.settings import Settings, paced

Float64 = npt.NDArray[np.float64]
Note = Callable[[str], None]
_TIMED_STEPS = 3


@dataclass(frozen=True, order=True)
class Training:
    """One training: a family, a seed, and what on: a share of the real patients, the synthetic images, or both.

    `site` leaves the images of that site alone, `source` the synthetic ones of that method and model.
    """

    family: str
    seed: int
    real: float = 0.0
    synthetic: bool = False
    site: str = ""
    source: str = ""

    def says(self) -> str:
        """What it trains on, for people."""
        real = "" if not self.real else "real" if self.real == 1.0 else f"{self.real:.0%} of the real"
        parts = " and ".join(part for part in (real, "synthetic" if self.synthetic else "") if part)
        return f"{self.family} on {parts} images{''.join(f' of {who}' for who in (self.site, self.source) if who)}"


def material(training: Training, made: Images, real: Images) -> tuple[ByteImages, Labels]:
    """Images and labels that `training` sees; the share of patients is drawn by its seed."""
    if training.site:
        made, real = (part.part(part.groups["site"] == training.site) for part in (made, real))
    if training.source:
        made = made.part(made.groups["source"] == training.source)
    some = real.of_share(training.real, np.random.default_rng([training.seed, 1])) if training.real else None
    if some is None:
        return made.pixels, made.labels
    return together(some, made) if training.synthetic else (some.pixels, some.labels)


class Trainings:
    """Trains what is asked for and keeps, of each training, probabilities [N, K] of the tested images `shown`.

    The network of `kept` is kept too: real images' features are measured in it.
    """

    def __init__(
        self, settings: Settings, made: Images, real: Images, shown: ByteImages, classes: int, kept: Training
    ) -> None:
        self.settings, self.steps = settings, dict(settings.steps)
        self._made, self._real, self._shown, self._classes = made, real, shown, classes
        self._kept, self._found = kept, dict[Training, Float64]()
        self.judge: Judge | None = None

    def run(self, wanted: Iterable[Training], note: Note) -> None:
        """Train all of `wanted`, in a fixed order. Raises ConfigError where the minutes given train nothing."""
        todo = sorted(set(wanted))
        count = Counter(training.family for training in todo)
        seconds = {name: self._seconds_a_step(name) for name in self.steps if count[name]}
        if self.settings.minutes is not None and todo:
            own = {name: self.steps[name] for name in seconds}
            self.steps |= paced(own, count, seconds, self.settings.minutes)
        left = sum(self.steps[one.family] * seconds[one.family] for one in todo)
        for number, training in enumerate(todo, 1):
            note(
                f"training {number} of {len(todo)}: {training.says()}, seed {training.seed}; "
                f"about {duration_text(left)} left"
            )
            self._found[training] = self._fit(training)
            left -= self.steps[training.family] * seconds[training.family]

    def __getitem__(self, training: Training) -> Float64:
        return self._found[training]

    def over_seeds(self, training: Training, seeds: int) -> Sequence[Float64]:
        """Probabilities of the same training under every seed."""
        return [self[replace(training, seed=seed)] for seed in range(seeds)]

    def _fit(self, training: Training) -> Float64:
        pixels, labels = material(training, self._made, self._real)
        steps, device = self.steps[training.family], self.settings.device
        judge = fit_judge(training.family, pixels, labels, self._classes, training.seed, steps, device)
        if training == self._kept:
            self.judge = judge
        return judge.probabilities(self._shown)

    def _seconds_a_step(self, family: str) -> float:
        few = self._made.part(
            np.concatenate([np.flatnonzero(self._made.labels == k)[:64] for k in range(self._classes)])
        )
        times = []
        for _ in range(2):  # the first of them loads what the second finds
            began = time.perf_counter()
            fit_judge(family, few.pixels, few.labels, self._classes, 0, _TIMED_STEPS, self.settings.device)
            times.append(time.perf_counter() - began)
        return min(times) / _TIMED_STEPS
