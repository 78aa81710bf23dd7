"""Nearest copy by thumbnails: the distance to closest record of `metrics/nearest.py`, as a membership attack.

A person's score is how near the released set comes to the person's image: soft shapes at 24 to 48 cells a side, through
mirror images, inverted polarity, brightness and small shifts. It does not see fine structure: `nearest-copy` does.
"""

from __future__ import annotations

from sfumato_client.audit.attacks.base import Attack, Known, People, Scores, no_obstacle, on_both
from sfumato_common.metrics.nearest import nearest_distances


def _score(members: People, holdout: People, known: Known) -> Scores:
    return on_both(lambda images, patients: -nearest_distances(images, known.candidates))(members, holdout)


THUMBNAIL = Attack(
    "thumbnail",
    "Is a released image, seen small, nearer to a training patient's image than to strangers'?",
    no_obstacle,
    _score,
)
