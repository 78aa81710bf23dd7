"""A release as it grows in the site's home: what was asked, every item as it was made, what became of each part.

Every file is written whole or not at all, so a release that was killed goes on where it stood. What is read back is
held against the ledger by whoever uses it; nothing here leaves the site but a package that an approval names.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from sfumato_client.anonymise.candidates import CandidateSet
from sfumato_client.dataset.encryption import decrypt_whole, encrypt_whole
from sfumato_common.accounting.events import Declared, event_from_json, event_to_json
from sfumato_common.errors import ConfigError, DataError, LedgerError, VerificationError
from sfumato_common.files import read_object, sync_folder, write_atomic, write_json
from sfumato_common.locks import exclusive
from sfumato_common.study.plan import Plan
from sfumato_common.study.release import AnyItem
from sfumato_common.study.words import Part
from sfumato_common.types import AnyArray, Arrays, fingerprint

_REQUEST, _PRIVATE = "request.safetensors", 0o600
_KIND, _BEHIND = "candidates", "behind"  # of the keys under which they are encrypted


class ReleaseFolder:
    """One plan's release in `root`, a folder of the site's home.

    With `encrypts` candidates are written under `store_key`; without, as they are. Both are read where there is a key.
    """

    def __init__(self, root: Path, store_key: bytes | None = None, encrypts: bool = False) -> None:
        self._root, self._key, self._encrypts = root, store_key, encrypts

    def held(self) -> contextlib.AbstractContextManager[None]:
        """Work on the release alone. Raises BusyError at once when another process does."""
        return exclusive(self._root, "this plan's release")

    @property
    def begun(self) -> bool:
        """Whether a release was asked for here."""
        return (self._root / _REQUEST).exists()

    def keep_request(self, choice: str, arrays: Arrays) -> None:
        """Keep what the release is made from. Raises LedgerError when it was begun from something else."""
        path = self._root / _REQUEST
        if not path.exists():
            write_atomic(path, save(dict(arrays), metadata={"choice": choice}), mode=_PRIVATE)
            return
        known, before = self.request()
        if known != choice or fingerprint(before) != fingerprint(arrays):
            raise LedgerError("this plan's release was begun with other models or another choice: it is made once")

    def request(self) -> tuple[str, dict[str, AnyArray]]:
        """The choice and the models that the release is made from. Raises LedgerError when it was never begun."""
        path = self._root / _REQUEST
        if not path.exists():
            raise LedgerError("this plan's release was never begun here, so that nothing can be sent")
        with _readable(), safe_open(path, framework="numpy") as file:
            return dict(file.metadata())["choice"], {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def choice(self) -> str:
        """The choice that the release is made from. Raises as `request`."""
        path = self._root / _REQUEST
        if not path.exists():
            raise LedgerError("this plan's release was never begun here")
        with _readable(), safe_open(path, framework="numpy") as file:
            return str(dict(file.metadata())["choice"])

    def keep_item(self, item: AnyItem, found: CandidateSet) -> None:
        """Keep the finished set of one item."""
        claims = {
            "method": found.method,
            "model": found.model,
            "guarantee": found.guarantee,
            "patients": found.patients,
            "spends": [event_to_json(event) for event in found.spends],
        }
        arrays = {"images": found.images, "labels": found.labels}
        data = save(arrays, metadata={"claims": json.dumps(claims)})
        if self._encrypts and self._key is not None:
            write_atomic(self._encrypted(item), encrypt_whole(self._key, _KIND, data), mode=_PRIVATE)
        else:
            write_atomic(self._item(item), data, mode=_PRIVATE)

    def item(self, item: AnyItem) -> CandidateSet | None:
        """The set of one item, when it is finished. Raises VerificationError when its file is damaged."""
        with _readable():
            data = self._data(item)
            if data is None:
                return None
            arrays, claims = load(data), json.loads(_metadata(data)["claims"])
            events = map(event_from_json, claims.pop("spends"))
            spends = tuple(event for event in events if not isinstance(event, Declared))
            labels = arrays["labels"].astype(np.int64)
            return CandidateSet(images=arrays["images"], labels=labels, spends=spends, **claims)

    def _data(self, item: AnyItem) -> bytes | None:
        path, encrypted = self._item(item), self._encrypted(item)
        if encrypted.exists():
            if self._key is None:
                raise ConfigError("candidates are encrypted here, and are read with the store's key alone")
            return decrypt_whole(self._key, _KIND, encrypted.read_bytes())
        return path.read_bytes() if path.exists() else None

    def keep_behind(self, item: AnyItem, data: bytes) -> None:
        """Keep who is behind the images of one item, encrypted always. Raises ConfigError without the store's key."""
        if self._key is None:
            raise ConfigError("who is behind an image is kept under the store's key alone")
        write_atomic(self._behind(item), encrypt_whole(self._key, _BEHIND, data), mode=_PRIVATE)

    def behind(self, item: AnyItem) -> bytes | None:
        """What was kept of who is behind an item's images; None where nothing was. Raises VerificationError."""
        path = self._behind(item)
        if self._key is None or not path.exists():
            return None
        with _readable():
            return decrypt_whole(self._key, _BEHIND, path.read_bytes())

    def erase_behind(self) -> None:
        """Erase what is kept of who is behind any item's images."""
        kept = list(self._root.glob(f"*.{_BEHIND}"))
        for path in kept:
            path.unlink(missing_ok=True)
        if kept:
            sync_folder(self._root)

    def keep_waiting(self, part: Part, sets: Sequence[str]) -> None:
        """Keep that a part, whose candidate sets have these digests, waits for people; since when, once."""
        if self.waiting(part) is None or self.waiting(part) != list(sets):
            told = {"sets": list(sets), "since": round(time.time(), 1)}
            write_atomic(self._waiting(part), json.dumps(told), mode=_PRIVATE)

    def waiting(self, part: Part) -> list[str] | None:
        """The digests of a part's candidate sets that wait, or waited, for people; None where they never did."""
        told = read_object(self._waiting(part))
        return list(told["sets"]) if told else None

    def waiting_since(self, part: Part) -> float | None:
        """Since when, in seconds since 1970."""
        return read_object(self._waiting(part)).get("since")

    def keep_refusal(self, part: Part, code: str) -> None:
        """Keep that a part will never be sent: the code of the reason, which the local log holds."""
        write_json(self._root / f"refused-{part}.json", {"code": code})

    def refusal(self, part: Part) -> str | None:
        """The code of why a part will never be sent; None while it may."""
        path = self._root / f"refused-{part}.json"
        return str(json.loads(path.read_text())["code"]) if path.exists() else None

    def keep_sent(self, part: Part) -> None:
        """Keep that an approved part was sent while another one waits."""
        write_json(self._root / f"sent-{part}.json", {"sent": True})

    def was_sent(self, part: Part) -> bool:
        """Whether it was."""
        return (self._root / f"sent-{part}.json").exists()

    def package(self, part: Part, shard: int = 1) -> Path:
        """Where a shard of a part lies when it is sealed; the first has the part's plain name."""
        return self._root / (f"{part}.sfumato" if shard == 1 else f"{part}.{shard:04d}.sfumato")

    def _item(self, item: AnyItem) -> Path:
        return self._root / f"{item.method}-{item.model}.safetensors"

    def _encrypted(self, item: AnyItem) -> Path:
        return self._root / f"{item.method}-{item.model}.encrypted"

    def _behind(self, item: AnyItem) -> Path:
        return self._root / f"{item.method}-{item.model}.{_BEHIND}"

    def _waiting(self, part: Part) -> Path:
        return self._root / f"waiting-{part}.json"


def release_folder(releases: Path, plan: Plan, store_key: bytes | None = None, encrypts: bool = False) -> ReleaseFolder:
    """The folder of `plan`'s release below `releases`; see `ReleaseFolder`."""
    return ReleaseFolder(releases / plan.digest[:16], store_key, encrypts)


def is_candidate(name: str) -> bool:
    """Whether a file of a release's folder holds candidates, as they were made."""
    return name.endswith((".safetensors", ".encrypted")) and name != _REQUEST


def _metadata(data: bytes) -> dict[str, str]:
    """The metadata of a safetensors file's bytes: its header is JSON behind eight bytes of its length."""
    length = int.from_bytes(data[:8], "little")
    return dict(json.loads(data[8 : 8 + length])["__metadata__"])


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AssertionError, DataError):
        raise VerificationError("a file of this plan's release is damaged; restore the home from a backup") from None
