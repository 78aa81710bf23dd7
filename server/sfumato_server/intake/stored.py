"""The packages that were admitted: which they are is verified once, and kept for as long as the file is the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sfumato_common.errors import SfumatoError
from sfumato_common.files import file_sha256
from sfumato_common.study.plan import Plan
from sfumato_common.study.shards import shards_at
from sfumato_common.study.words import Part
from sfumato_server.enrol.registry import SiteRecord
from sfumato_server.intake.admission import admit, package_path

Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class _Known:
    """What was found out about a file: of which stamp, under whose key, and its sha256 (None: nothing of this plan)."""

    stamp: Stamp
    signing_key: str
    sha256: str | None


class Stored:
    """sha256 of the stored packages by site, part and shard. Publishing verifies every one again from its bytes."""

    def __init__(self, home: Path, plan: Plan) -> None:
        self._home, self._plan = home, plan
        self._known: dict[tuple[str, Part, int], _Known] = {}

    def follow(self, plan: Plan) -> None:
        """Sites may have been admitted: `plan` has them."""
        self._plan = plan

    def digests(self, record: SiteRecord) -> dict[tuple[Part, int], str]:
        """Packages admitted earlier from this site under this plan; those of another do not count."""
        found: dict[tuple[Part, int], str] = {}
        for part, shard in shards_at(self._plan, record.site):
            stamp = self._stamp(record, part, shard)
            if stamp is None:
                continue
            known = self._known.get((record.site, part, shard))
            if known is None or (known.stamp, known.signing_key) != (stamp, record.signing_key):
                known = _Known(stamp, record.signing_key, self._verify(record, part, shard))
                self._known[record.site, part, shard] = known
            if known.sha256 is not None:
                found[part, shard] = known.sha256
        return found

    def keep(self, record: SiteRecord, part: Part, shard: int, sha256: str) -> None:
        """A package that has just been admitted and stored."""
        stamp = self._stamp(record, part, shard)
        assert stamp is not None, "what is kept has been written"
        self._known[record.site, part, shard] = _Known(stamp, record.signing_key, sha256)

    def _stamp(self, record: SiteRecord, part: Part, shard: int) -> Stamp | None:
        try:
            found = package_path(self._home, record.site, part, shard).stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _verify(self, record: SiteRecord, part: Part, shard: int) -> str | None:
        path = package_path(self._home, record.site, part, shard)
        try:
            head = admit(path, self._plan, record).head
            return file_sha256(path) if (head.part, head.shard) == (part, shard) else None
        except (SfumatoError, FileNotFoundError):
            return None
