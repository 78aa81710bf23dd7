"""Uploads in progress: bytes on disk, so that a broken connection, or a restarted coordinator, loses nothing."""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

from sfumato_common.files import room_errors


@dataclass(frozen=True)
class Partial:
    """One announced package: whose, how large, which bytes, and the file that grows."""

    identifier: str
    site: str
    size: int
    sha256: str
    path: Path
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def offset(self) -> int:
        """Bytes that have arrived."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def append(self, data: bytes) -> None:
        """Add bytes at the end. Raises NoRoomError for a full disk: what had room stays, and counts as arrived."""
        with room_errors(), self.path.open("ab") as stream:
            stream.write(data)

    def discard(self) -> None:
        """Forget the bytes."""
        self.path.unlink(missing_ok=True)


class Partials:
    """At most one upload a site, so that no site can fill the disk beyond one package."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._by_site: dict[str, Partial] = {}
        self._again: dict[str, Partial] = {}
        self._lock = threading.Lock()

    def begin(self, site: str, plan_hash: str, size: int, sha256: str) -> Partial:
        """The site's upload of exactly these bytes, resumed if it was begun before; any other one is dropped."""
        upload = self._announced(site, plan_hash, size, sha256)
        with self._lock:
            known = self._by_site.get(site)
            if known is not None and known.identifier == upload.identifier:
                return known
            for stale in self._folder.glob(f"{site}.*"):
                if stale != upload.path:
                    stale.unlink(missing_ok=True)
            if upload.offset > size:
                os.truncate(upload.path, 0)
            self._by_site[site] = upload
            return upload

    def again(self, site: str, plan_hash: str, size: int, sha256: str) -> Partial:
        """The announcement of bytes that are stored already: none are taken, and an upload that was begun stays."""
        upload = self._again[site] = self._announced(site, plan_hash, size, sha256)
        return upload

    def _announced(self, site: str, plan_hash: str, size: int, sha256: str) -> Partial:
        identifier = hashlib.sha256(f"{site}\n{plan_hash}\n{size}\n{sha256}".encode()).hexdigest()[:32]
        return Partial(identifier, site, size, sha256, self._folder / f"{site}.{identifier}")

    def of(self, site: str, identifier: str) -> Partial | None:
        """The site's own upload of that identifier, if it was begun."""
        own = (self._by_site.get(site), self._again.get(site))
        return next((upload for upload in own if upload is not None and upload.identifier == identifier), None)

    def end(self, upload: Partial) -> None:
        """The upload is over, well or not: its bytes go."""
        with self._lock:
            for kept in (self._by_site, self._again):
                if kept.get(upload.site) is upload:
                    del kept[upload.site]
            upload.discard()
