"""What a store holds, in one keyed digest: whether two stores are of one cohort, however and when they were written.

Patients, splits, labels, views and pixels, in no order: an ingest of the same source comes to the same digest under
other keys of files. It is keyed by the site's split key, so that whoever reads a ledger learns nothing from it.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfumato_client.dataset.arrays import read_arrays, tokens_of
from sfumato_client.dataset.facts import StoreFacts
from sfumato_client.dataset.filling import INDEX
from sfumato_client.dataset.register import REGISTER
from sfumato_common.types import AnyArray

_VIEW = 16


@dataclass(frozen=True)
class Content:
    """What the store at `folder` holds; nothing is read before it is asked for."""

    folder: Path
    store_key: bytes
    split_key: bytes

    @property
    def mark(self) -> str:
        """What tells this very store from every other one, of the same images too. Raises DataError."""
        return StoreFacts.read(self.folder, self.store_key).mark

    def digest(self) -> str:
        """HMAC-SHA-256 over all images with whose they are, 64 hexadecimal digits. Raises DataError."""
        facts = StoreFacts.read(self.folder, self.store_key)
        index = read_arrays(self.folder, INDEX, facts.index, self.store_key)
        pixels = read_arrays(self.folder, REGISTER, facts.register, self.store_key)["digests"]
        labels = index["labels"].astype(">u4").view(np.uint8).reshape(-1, 4)
        views = np.frombuffer(index["view"].astype(f"S{_VIEW}").tobytes(), np.uint8).reshape(-1, _VIEW)
        split = index["split"].reshape(-1, 1)
        whole = np.hstack([_least_tokens(index)[index["owner"]], split, labels, views, pixels])
        lines, counts = np.unique(whole, axis=0, return_counts=True)
        said = lines.tobytes() + counts.astype(">u8").tobytes()
        return hmac.digest(self.split_key, b"cohort\0" + said, hashlib.sha256).hex()


def _least_tokens(index: dict[str, AnyArray]) -> AnyArray:
    """Of each patient the least of all tokens [n, 16]: which of them is the first one hangs on the order of a table."""
    tokens = np.concatenate([tokens_of(index["patients"]), tokens_of(index["aliases"]).reshape(-1, 16)])
    owners = np.concatenate([np.arange(len(index["patients"])), index["alias_owner"].astype(np.int64)])
    order = np.lexsort([*tokens.T[::-1], owners])
    _, first = np.unique(owners[order], return_index=True)
    return np.asarray(tokens[order][first])
