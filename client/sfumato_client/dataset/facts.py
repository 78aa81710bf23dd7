"""`store.json`: what a store was ingested for, and which files it is; authenticated under the store's key."""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sfumato_client.dataset.encryption import ALTERED, authenticate, store_key_name
from sfumato_client.dataset.newest import require_newest
from sfumato_client.dataset.pixel_file import PixelFacts
from sfumato_common.errors import DataError
from sfumato_common.files import canonical_json, write_json
from sfumato_common.study.terms import ImageForm
from sfumato_common.types import pixel_dtype

FACTS = "store.json"
_FORMAT, _READ = 4, (3, 4)
_UNENCRYPTED = (1, 2)


@dataclass(frozen=True)
class StoreFacts:
    """What was ingested, from `store.json` alone and hence from the plan that it was ingested for, never from pixels.

    `labels` are names in the order of the stored numbers; `shape` [N, S, S(, 3)] and `dtype` are those of the pixels;
    `key` names the split key (`splits.key_name`). `pixels`, `index` and `register` are the ids of the store's files.
    """

    labels: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    key: str
    pixels: str
    index: str
    register: str
    # what tells a store that was read from every other one: the code by which `store.json` is authenticated
    mark: str = field(default="", compare=False)

    @staticmethod
    def read(folder: Path, store_key: bytes) -> StoreFacts:
        """The facts of the newest store at `folder`; no image and no patient is looked at. Raises DataError."""
        try:
            value = json.loads((folder / FACTS).read_text())
            if value["format"] in _UNENCRYPTED:
                raise DataError(
                    f"store '{folder.name}' is of a version that did not encrypt it; remove the folder and ingest again"
                )
            mac, of, known = str(value.pop("mac")), str(value["store_key"]), value["format"] in _READ
            labels, shape = tuple(map(str, value["labels"])), tuple(map(int, value["shape"]))
            said = (str(value[name]) for name in ("dtype", "key", "pixels", "index", "register"))
            facts = replace(StoreFacts(labels, shape, *said), mark=mac)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            known = False
        if not known:
            raise DataError(f"store '{folder.name}' is missing, incomplete or of another version; ingest again")
        if of != store_key_name(store_key):
            raise DataError(
                f"store '{folder.name}' was written under another key than the one that is here; put that key back, or "
                "remove the folder and ingest again"
            )
        if not hmac.compare_digest(mac, _mac(value, store_key)):
            raise DataError(ALTERED)
        require_newest(folder, mac, store_key)
        return facts

    def write(self, folder: Path, store_key: bytes) -> str:
        """Write them, last of all; their mark. From then on `folder` holds this store, before it another, or none."""
        value = {name: getattr(self, name) for name in ("dtype", "key", "pixels", "index", "register")}
        value |= {"labels": list(self.labels), "shape": list(self.shape)}
        value |= {"format": _FORMAT, "store_key": store_key_name(store_key)}
        mark = _mac(value, store_key)
        write_json(folder / FACTS, {**value, "mac": mark})
        return mark

    @property
    def of_pixels(self) -> PixelFacts:
        """Which file the pixels are in."""
        return PixelFacts(self.shape, self.dtype, bytes.fromhex(self.pixels))

    def require(self, form: ImageForm, labels: Sequence[str]) -> None:
        """Raises DataError unless the store was ingested for this very form and these labels, in their order.

        A number in the store means a label of the plan that it was ingested for, and nothing under another plan.
        """
        if self.shape[1:] != form.shape or self.dtype != str(np.dtype(pixel_dtype(form.bits))):
            raise DataError(
                f"the store holds images of another form than the plan's {form.size} x {form.size}, {form.channels} "
                f"channel(s), {form.bits} bits; ingest again for this plan"
            )
        if self.labels != tuple(labels):
            raise DataError(
                "the store was ingested under labels of other names, order or number than the plan's; ingest again for "
                "this plan"
            )


def _mac(value: dict[str, Any], store_key: bytes) -> str:
    return authenticate(store_key, "facts", canonical_json(value))
