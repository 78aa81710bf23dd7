"""Prints of images that earlier versions of a set withdrew: a later version does not bring them again, nor nearly.

A print (`metrics/alike.py`) is of a synthetic image that was published; the file stays in the coordinator's home.
"""

from __future__ import annotations

import io
from collections.abc import Collection
from itertools import islice
from pathlib import Path

import numpy as np

from sfumato_common.errors import ConfigError
from sfumato_common.files import write_atomic
from sfumato_common.imaging import decode_png
from sfumato_common.metrics.alike import Floats, prints, views
from sfumato_server.pool.pool import Pool

FILE = "withdrawn.npy"
_BLOCK = 512  # images at once


def read_withdrawn(home: Path) -> Floats | None:
    """Prints [N, D] of all that was withdrawn before this home's version; None where nothing was.

    Raises ConfigError for a file that is damaged.
    """
    path = home / FILE
    if not path.exists():
        return None
    try:
        return np.asarray(np.load(path, allow_pickle=False), np.float32)
    except (OSError, ValueError, EOFError):
        raise ConfigError(f"'{FILE}' in the coordinator's home is damaged; take it from a backup") from None


def note_withdrawn(old: Path, new: Path, earlier: Pool, sites: Collection[str]) -> None:
    """Write into the home `new` what `old` has, and the images of `sites` in the earlier version's pool."""
    before = read_withdrawn(old)
    found = [] if before is None else [before]
    items = (
        item
        for place, shard in enumerate(earlier.shards)
        if shard.head.site in sites
        for item in earlier.items_of(place, shard)
    )
    while block := list(islice(items, _BLOCK)):
        found.append(prints(views(np.stack([decode_png(item.png) for item in block]))))
    if found:
        stream = io.BytesIO()
        np.save(stream, np.concatenate(found).astype(np.float16))
        write_atomic(new / FILE, stream.getvalue())
