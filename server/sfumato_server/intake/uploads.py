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
        self._lock = threading.Lock()

    def begin(self, site: str, plan_hash: str, size: int, sha256: str) -> Partial:
        """The site's upload of exactly these bytes, resumed if it was begun before; any other one is dropped."""
        identifier = hashlib.sha256(f"{site}\n{plan_hash}\n{size}\n{sha256}".encode()).hexdigest()[:32]
        with self._lock:
            known = self._by_site.get(site)
            if known is not None and known.identifier == identifier:
                return known
            upload = Partial(identifier, site, size, sha256, self._folder / f"{site}.{identifier}")
            for stale in self._folder.glob(f"{site}.*"):
                if stale != upload.path:
                    stale.unlink(missing_ok=True)
            if upload.offset > size:
                os.truncate(upload.path, 0)
            self._by_site[site] = upload
            return upload

    def of(self, site: str, identifier: str) -> Partial | None:
        """The site's own upload of that identifier, if it was begun."""
        upload = self._by_site.get(site)
        return upload if upload is not None and upload.identifier == identifier else None

    def end(self, upload: Partial) -> None:
        """The upload is over, well or not: its bytes go."""
        with self._lock:
            if self._by_site.get(upload.site) is upload:
                del self._by_site[upload.site]
            upload.discard()
