"""Equal pixels are found shard by shard as one image after another would find them."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato_common.package.manifest import ManifestImage
from sfumato_server.pool import Duplicate
from sfumato_server.pool.duplicates import Duplicates


@pytest.mark.parametrize("different", [3, 40, 10_000])
def test_the_first_of_equal_pixels_is_kept_in_the_order_of_shards_and_names(different: int) -> None:
    rng = np.random.default_rng(different)
    found, kept, wanted = Duplicates(), dict[str, tuple[str, str]](), list[Duplicate]()
    for shard, site in enumerate(("alder", "alder", "birch", "cedar")):
        names = sorted(rng.bytes(16).hex() for _ in range(60))
        entries = [
            ManifestImage(
                name=name,
                label="normal",
                model="gan",
                method="dp-sampling",
                guarantee="formal",
                sha256="0" * 64,
                pixel_sha256=f"{rng.integers(different):064x}",
            )
            for name in names
        ]
        own = []
        for entry in entries:
            if entry.pixel_sha256 in kept:
                own.append(Duplicate(site, entry.name, *kept[entry.pixel_sha256]))
            else:
                kept[entry.pixel_sha256] = site, entry.name
        assert found.add(shard, site, entries) == {item.name for item in own}
        assert found.of(shard) == {item.name: item for item in own}
        wanted += own
    assert list(found) == wanted and len(found) == len(wanted)
