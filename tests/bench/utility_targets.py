"""The targets of the utility bench, stated before any figure was seen, and by how much rows meet or miss them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# mean and standard deviation over seeds of every score, by (row, epsilon) of one cohort; epsilon None: real images
Spread = tuple[float, float]
Cells = Mapping[tuple[str, float | None], Mapping[str, Spread]]

REAL = ("real", None)
ONLY = "only "
NOT_SITES = {"auc low", "auc high"}
_PNEUMONIA_AUC = {10.0: 0.950, 5.0: 0.945, 1.0: 0.930}
_PNEUMONIA_RECALL = {10.0: 0.85, 5.0: 0.80, 1.0: 0.60}
_PNEUMONIA_DISTANCE = {10.0: 1.0, 1.0: 2.0}  # in units of the real train-test distance
_SITES_SHARE = {10.0: 0.98, 1.0: 0.95}  # of TRTR
# what ordinary judges are to reach on patients kept apart, and at each site whose own real data they can learn from
_JUDGED = {10.0: 0.92, 1.0: 0.85}
_JUDGES = ("cnn", "resnet18")
_CHANCE, _LEARNT = 0.5, 0.6


@dataclass(frozen=True)
class Target:
    """At `epsilon` the mean of `score` is to be at least (or, with `at_most`, at most) `bound`."""

    epsilon: float
    score: str
    bound: float
    at_most: bool
    why: str

    def margin(self, value: float) -> float:
        """By how much `value` meets the target; negative when it misses it."""
        return self.bound - value if self.at_most else value - self.bound


def targets_of(cohort: str, cells: Cells) -> list[Target]:
    """The targets of a cohort, those that are relative to real images in this run's figures; none without them."""
    if REAL not in cells or cohort not in {"pneumonia", "sites"}:
        return []
    real = {name: spread[0] for name, spread in cells[REAL].items()}
    if cohort == "pneumonia":
        return [
            *(Target(epsilon, "auc", bound, False, "stated") for epsilon, bound in _PNEUMONIA_AUC.items()),
            *(
                Target(epsilon, "FD trained", times * real["FD trained"], True, f"{times:g} x real train-test")
                for epsilon, times in _PNEUMONIA_DISTANCE.items()
            ),
            *(Target(epsilon, "recall", bound, False, "stated") for epsilon, bound in _PNEUMONIA_RECALL.items()),
            *_judged(cells),
        ]
    pooled = [
        Target(epsilon, "auc", share * real["auc"], False, f"{share:g} of TRTR")
        for epsilon, share in _SITES_SHARE.items()
    ]
    return [*pooled, *_judged(cells)] + [
        Target(epsilon, score, bound, False, "best other site's own real data")
        for epsilon in _SITES_SHARE
        for score, bound in _others(cells).items()
    ]


def _judged(cells: Cells) -> list[Target]:
    """Bars of the judges that judged: pooled, and chance at every site whose own real data a judge learnt from."""
    present = {name for scores in cells.values() for name in scores}
    targets = []
    for epsilon, bound in _JUDGED.items():
        for judge in _JUDGES:
            pooled = f"{judge} val"
            if pooled not in present:
                continue
            targets.append(Target(epsilon, pooled, bound, False, "stated"))
            targets += [
                Target(epsilon, f"{pooled} {site}", _CHANCE, False, "never worse than chance where it can be learnt")
                for site in _learnt(cells)
                if f"{pooled} {site}" in present
            ]
        targets += [
            Target(epsilon, f"cnn val own {site}", _CHANCE, False, "its own images on its own patients")
            for site in _learnt(cells)
        ]
    return targets


def _learnt(cells: Cells) -> list[str]:
    """Sites whose real images alone bring the ordinary CNN well above chance on their own patients kept apart."""
    own = "cnn val own "
    alone = {row.removeprefix(ONLY): scores for (row, _), scores in cells.items() if row.startswith(ONLY)}
    return [site for site, scores in alone.items() if scores.get(own + site, (0.0, 0.0))[0] >= _LEARNT]


def _others(cells: Cells) -> dict[str, float]:
    """For each site's AUC, the best that the real data of one OTHER site alone reaches there."""
    alone = {row.removeprefix(ONLY): scores for (row, _), scores in cells.items() if row.startswith(ONLY)}
    sites = sorted({name for scores in alone.values() for name in scores if name.startswith("auc ")} - NOT_SITES)
    best = {}
    for score in sites:
        others = [found[score][0] for site, found in alone.items() if score != f"auc {site}" and score in found]
        if others:
            best[score] = max(others)
    return best
