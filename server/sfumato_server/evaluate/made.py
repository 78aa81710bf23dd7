"""The published set as an evaluation needs it: what its entries say of all images, and the pixels of some."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfumato_common.errors import DataError
from sfumato_common.memory import rows_at_once
from sfumato_common.study.plan import Plan
from sfumato_server.evaluate.images import Images
from sfumato_server.publish.converted import open_source

# bytes a pixel that training takes: the integers, a set beside it, and both as float32
_BYTES = 16
_SEED = 20_261_128  # public: the same images at every run


@dataclass(frozen=True, eq=False)
class Made:
    """A published set: its plan, how many images it has, how many of those repeat another's pixels, and `images`.

    `images` are all of them or, of a large set, a sample drawn from all alike.
    """

    plan: Plan
    count: int
    repeated: int
    images: Images
    manifest_sha256: str = ""


def read_made(folder: Path, most: int) -> Made:
    """Read a set, published or converted: entries first, then the pixels of at most `most` images, one after another.

    Raises ConfigError and VerificationError as `open_source`, DataError where a label of the plan has no image.
    """
    source = open_source(folder)
    published, plan = source.published, source.about.plan
    hashes = np.array([int(entry.pixel_sha256[:15], 16) for entry in published.entries()], dtype=np.int64)
    count = len(hashes)
    room = rows_at_once(_BYTES * int(np.prod(plan.image.shape)), count)
    number = min(count, most, room)
    rng = np.random.default_rng(_SEED)
    chosen = np.sort(rng.choice(count, number, replace=False))
    pixels = np.zeros((number, *plan.image.shape), np.uint16 if plan.image.bits == 16 else np.uint8)
    labels, sites, sources = np.zeros(number, np.int64), list[str](), list[str]()
    for place, image in enumerate(source.chosen(chosen.tolist())):
        entry = image.entry
        pixels[place], labels[place] = image.pixels, plan.labels.index(entry.label)
        sites.append(entry.site)
        sources.append(f"{entry.method} ({entry.model})")
    have = Counter(labels.tolist())
    if missing := [name for at, name in enumerate(plan.labels) if not have[at]]:
        raise DataError(f"the set has no image of the label '{missing[0]}'; a classifier of it cannot be trained")
    images = Images(pixels, labels, np.arange(number), {"site": np.array(sites), "source": np.array(sources)})
    return Made(plan, count, count - len(np.unique(hashes)), images, source.about.digest)
