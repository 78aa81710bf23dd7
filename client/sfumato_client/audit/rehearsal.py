"""A rehearsal of the gate on phantom patients: which of a policy's rules would see a leak at a site of this size.

Nobody real has a part in it: people, strangers and candidates are drawn by the phantom (`phantom`), as many as the site
has patients, up to `MOST` on a side. Four sets are judged by the gate's own code: of strangers; with one copy; with
copies in one of twenty; and of copies alone. Nothing is charged, and nothing leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sfumato_client.anonymise.candidates import CandidateSet
from sfumato_client.audit.attacks.base import Indices, underpowered
from sfumato_client.audit.attacks.intervals import least_area
from sfumato_client.audit.rules import FEWEST_CONTROLS, Finding
from sfumato_client.audit.soundness import TextReader
from sfumato_client.audit.verdict import judge
from sfumato_client.dataset import Cohort
from sfumato_common.encoders.encoder import Encoder
from sfumato_common.errors import DataError
from sfumato_common.phantom import arrays
from sfumato_common.study.gate_rules import GateRules
from sfumato_common.types import ByteImages

MOST = 300  # phantom patients on a side, whom drawing takes minutes at most
LARGEST = 256  # pixels a side; rules see no more of larger images
_SEED, _K = 20261128, 5  # patients of a group
# the sets that are judged, and how large a share of each comes back from training patients
SETS: Mapping[str, Callable[[int], int]] = {
    "strangers": lambda count: 0,
    "one copy": lambda count: 1,
    "5 % copies": lambda count: max(1, round(0.05 * count)),
    "copies": lambda count: count,
}


@dataclass(frozen=True)
class Rehearsal:
    """What each rule said of each set: `refused[rule][set]`; the patients that were drawn; and what sizes can tell."""

    members: int
    holdout: int
    drawn: tuple[int, int]
    obstacle: str
    refused: Mapping[str, Mapping[str, bool]]
    power: str

    @property
    def blind(self) -> tuple[str, ...]:
        """Rules that refuse none of the sets with copies."""
        return tuple(rule for rule, sets in self.refused.items() if not any(sets.values()))

    def to_json(self) -> dict[str, Any]:
        """For the site's own eyes: it counts patients."""
        return {
            "training_patients": self.members,
            "holdout_patients": self.holdout,
            "drawn": list(self.drawn),
            "obstacle": self.obstacle,
            "refused": {rule: dict(sets) for rule, sets in self.refused.items()},
            "power": self.power,
        }


def rehearse(
    members: int,
    holdout: int,
    size: int,
    channels: int,
    candidates: int,
    rules: GateRules,
    encoder: Encoder | None = None,
    has_text: TextReader | None = None,
) -> Rehearsal:
    """The gate under `rules` on a phantom of a site of so many patients, images of `size` pixels, 1 or 3 channels.

    Raises DataError where the site has too few patients for the gate to be held at all.
    """
    if members < 2 or holdout < FEWEST_CONTROLS:
        raise DataError(f"the gate needs two training patients and {FEWEST_CONTROLS} holdout patients at least")
    drawn = min(members, MOST), min(holdout, MOST)
    images, labels, patients = _drawn(sum(drawn) + candidates, min(size, LARGEST), channels)
    first = np.searchsorted(patients, [drawn[0], sum(drawn)])
    train, strangers = (
        Cohort(images[part], labels[part], patients[part] - patients[part][0])
        for part in (slice(0, first[0]), slice(first[0], first[1]))
    )
    starts = np.unique(patients[first[1] :], return_index=True)[1] + first[1]
    made = [_leaking(name, images[starts], labels[starts], train) for name in SETS]
    behind = {item.name: groups for item, groups in made}
    verdict = judge([item for item, _ in made], train, strangers, rules, encoder, has_text, behind)
    return Rehearsal(members, holdout, drawn, verdict.obstacle, _by_rule(verdict.findings), _power(members, holdout))


def _drawn(people: int, size: int, channels: int) -> tuple[ByteImages, Any, Any]:
    images, grades, patients = arrays(_SEED, people, size, modality="chest" if channels == 1 else "fundus")
    return images, (grades > 0).astype(np.int64), patients


def _leaking(name: str, images: ByteImages, labels: Any, train: Cohort) -> tuple[CandidateSet, list[Indices]]:
    """A set that claims to be made from groups, so that every rule is put to it, with so many copies; and its groups.

    A patient who was copied is of the group that the image is said to be made from.
    """
    images, labels = images.copy(), labels.copy()
    copies, rng = SETS[name](len(images)), np.random.default_rng(_SEED)
    known, known_labels, owners = train.everything()
    who = rng.choice(len(known), copies, replace=copies > len(known))
    images[:copies], labels[:copies] = known[who], known_labels[who]
    people = rng.permutation(np.unique(owners))
    groups = np.array_split(people, max(1, len(people) // _K))
    group_of = {int(patient): at for at, group in enumerate(groups) for patient in group}
    claimed = [group_of[int(owners[row])] for row in who] + [at % len(groups) for at in range(copies, len(images))]
    item = CandidateSet("k-same", name, "heuristic", images, labels, patients=_K)
    return item, [groups[at] for at in claimed]


def _by_rule(findings: tuple[Finding, ...]) -> dict[str, dict[str, bool]]:
    found: dict[str, dict[str, bool]] = {}
    for finding in findings:
        name = finding.of.split("(", 1)[1]
        of, which = name.split(")", 1)
        found.setdefault(f"{finding.rule}{which}", {})[of] = not finding.passed
    return found


def _power(members: int, holdout: int) -> str:
    return underpowered(members, holdout) or (
        f"with {members} training and {holdout} holdout patients an AUC of {least_area(members, holdout):.2f} and more "
        "is told from chance in 8 of 10 cases"
    )
