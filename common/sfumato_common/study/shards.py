"""How a part of a release is cut into shards, each a package of its own; it follows from the plan alone.

So many and so large files are what a site always sends: their number tells nothing of its patients.
"""

from __future__ import annotations

from sfumato_common.study.plan import Plan
from sfumato_common.study.terms import ImageForm
from sfumato_common.study.words import Part

LARGEST_PIXELS = 128_000_000  # bytes of pixels in one shard
MOST_IMAGES = 10_000  # in one shard


def most_in_shard(image: ImageForm) -> int:
    """The most images of that form in one shard."""
    return min(MOST_IMAGES, max(1, LARGEST_PIXELS // (image.size**2 * image.channels * image.bits // 8)))


def release_images(plan: Plan, site: str) -> int:
    """How many images `site` releases when all of it is let go: a number of the plan, whatever the site holds."""
    return sum(item.at(site) for item in plan.release)


def shard_sizes(plan: Plan, site: str, part: Part) -> list[int]:
    """Images in each shard of a part at `site`: as few shards as fit the two limits, equal to within one image."""
    images = sum(item.images for item in plan.part_at(site, plan.choices[0], part))
    shards = -(-images // most_in_shard(plan.image))
    return [images // shards + (number < images % shards) for number in range(shards)]


def shards_at(plan: Plan, site: str) -> list[tuple[Part, int]]:
    """Every shard of the release at `site`: its part, and its number from 1."""
    return [
        (part, number) for part in plan.parts_at(site) for number in range(1, len(shard_sizes(plan, site, part)) + 1)
    ]
