"""What a figure is: a name, what it says, the classifiers it needs, and how its lines are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from sfumato_server.evaluate.evaluation import Evaluation, Score
from sfumato_server.evaluate.images import Rows
from sfumato_server.evaluate.rows import Row, jackknifed_row
from sfumato_server.evaluate.training import Training


@dataclass(frozen=True)
class Figure:
    """`says` is one sentence for the reader; `needs` are trainings that `measure` reads, all seeds of them."""

    name: str
    title: str
    says: str
    measure: Callable[[Evaluation], list[Row]]
    needs: Callable[[Evaluation], Iterable[Training]] = lambda evaluation: ()


def all_seeds(evaluation: Evaluation, *trainings: Training) -> list[Training]:
    """Those trainings under every seed of the settings."""
    return [replace(one, seed=seed) for one in trainings for seed in range(evaluation.settings.seeds)]


def on_synthetic(family: str) -> Training:
    """A family's first training on the set alone."""
    return Training(family, 0, synthetic=True)


def on_real(family: str) -> Training:
    """A family's first training on all real training images."""
    return Training(family, 0, real=1.0)


def both(evaluation: Evaluation) -> list[Training]:
    """Every family on the set and on real images, under every seed."""
    families = evaluation.settings.families
    return all_seeds(evaluation, *(kind(name) for name in families for kind in (on_synthetic, on_real)))


def of_first(evaluation: Evaluation) -> list[Training]:
    """The first family on the set and on real images, under every seed."""
    first = evaluation.settings.families[0]
    return all_seeds(evaluation, on_synthetic(first), on_real(first))


def jackknifed_score(
    evaluation: Evaluation, name: str, of: str, family: str, score: Score, rows: Rows | None = None
) -> Row:
    """A line of a score of a family on the set and on real images, where a patient drawn twice would look a gap."""
    trainings = on_synthetic(family), on_real(family)
    (made, others), (real, rest) = (evaluation.left_out(training, score, rows) for training in trainings)
    return jackknifed_row(name, of, (made, real), list(zip(others, rest, strict=True)), "difference")
