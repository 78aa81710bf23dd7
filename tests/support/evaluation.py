"""Small evaluations of phantoms, in memory: a set, training and tested patients, and a plan of their labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sfumato_common.phantom import arrays
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.evaluate.evaluation import Evaluation
from sfumato_server.evaluate.images import Images
from sfumato_server.evaluate.index import Real
from sfumato_server.evaluate.made import Made
from sfumato_server.evaluate.settings import Settings

SIZE = 32


def phantoms(seed: int, patients: int, first: int) -> Images:
    """Phantom patients with their sex; those of 'north' are healthy in every set."""
    pixels, labels, index = arrays(seed, patients, SIZE, first=first)
    site = np.where((index % 4 == 0) & (labels == 0), "north", "east")
    return Images(pixels, labels, index, {"site": site, "sex": np.where(index % 2, "female", "male")})


def evaluation_of(
    made: Images, train: Images, test: Images, steps: Mapping[str, int] | None = None, seeds: int = 1
) -> Evaluation:
    """An evaluation that trains little."""
    labels = ["normal", "abnormal"]
    stage = {"kind": "spectral", "bandwidth": 8, "clip_radius": 1.0, "noise_multiplier": 2.0}
    plan = parse(
        {
            "study": "chest",
            "image": {"size": SIZE, "channels": 1},
            "labels": labels,
            "sites": {name: {"nominal_patients": 100} for name in ("east", "north")},
            "privacy": {"epsilon": 8.0, "delta": 1e-4},
            "stages": [stage],
            "release": [{"model": "spectral", "images": 6}],
            "federation": {"quorum": 2},
        },
        Plan,
        "plan",
    )
    images = Images(
        made.pixels,
        made.labels,
        np.arange(len(made)),
        {k: made.groups[k] for k in ("site", "source") if k in made.groups},
    )
    settings = Settings(seeds=seeds, draws=60, steps=steps or {"cnn": 45, "resnet18": 2})
    return Evaluation(Made(plan, len(images), 0, images), Real(train, test, train), settings)
