"""Images that a set leaves out as nearly another of it: each such claim is held against the pictures of both."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sfumato_common.errors import VerificationError
from sfumato_common.imaging import decode_png
from sfumato_common.metrics.alike import LIMIT, distances, prints, views
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray
from sfumato_server.publish.layout import ShardFiles
from sfumato_server.publish.manifest import MANIFEST, PublishedManifest, ShardLine
from sfumato_server.publish.shard import published_entries, read_file, read_shard

# another machine's last bits may be others
_ROUNDING = 1e-3


class Claim(NamedTuple):
    """The picture of an image that is left out: its file, and the sha256 that its site signed."""

    file: str
    sha256: str


class Claims:
    """All claims of a set by the image that is kept, until each was checked; `folder` has the signed statements."""

    def __init__(self, folder: Path, manifest: PublishedManifest, plan: Plan) -> None:
        """Raises VerificationError where the plan lets such images stay, or no earlier version can have withdrawn one.

        Which image that was is not said again, so that nobody can compare with it: such images are counted.
        """
        self._folder, self._manifest = folder, manifest
        self._open: dict[tuple[str, str], list[Claim]] = defaultdict(list)
        for line in manifest.shards:
            if (line.near or line.withdrawn) and plan.near_duplicates == "stay":
                raise VerificationError(f"{MANIFEST} leaves out near-duplicates, and its plan lets them stay")
            if line.withdrawn and (plan.lineage is None or line.site not in plan.sites):
                raise VerificationError(f"{MANIFEST} leaves out images as withdrawn ones, and nothing was withdrawn")
            for (site, name), claim in claims_of(folder, line) if line.near else ():
                self._open[site, name].append(claim)

    def check(self, site: str, name: str, pixels: AnyArray) -> None:
        """Hold what is left out for that image against its pixels. Raises VerificationError naming the file."""
        for claim in self._open.pop((site, name), ()):
            data = read_file(self._folder, claim.file)
            if hashlib.sha256(data).hexdigest() != claim.sha256:
                raise VerificationError(f"{claim.file} is not the picture that its site signed")
            other = decode_png(data)
            if other.shape != pixels.shape or _distance(other, pixels) > LIMIT + _ROUNDING:
                raise VerificationError(f"{claim.file} is left out as nearly an image of site '{site}', and is not")

    def check_folder(self, folder: Path) -> None:
        """Check all of them in the set as it was published."""
        sites = {site for site, _ in self._open}
        for line in self._manifest.shards:
            if line.site in sites:
                _, entries, index = read_shard(folder, line)
                for entry in published_entries(ShardFiles(line.site, line.part, line.shard), entries, index.left):
                    if (entry.site, entry.name) in self._open:
                        self.check(entry.site, entry.name, decode_png(read_file(folder, entry.file)))
        self.require_none()

    def require_none(self) -> None:
        """Raise VerificationError where a claim names an image that is not in the set."""
        if self._open:
            site, name = min(self._open)
            raise VerificationError(f"{MANIFEST} leaves out images for {site}/{name}, which is not in the set")


def claims_of(folder: Path, line: ShardLine) -> Iterator[tuple[tuple[str, str], Claim]]:
    """Site and name of what is kept, and the picture that is left out for it, of every such claim of a shard."""
    _, entries, index = read_shard(folder, line)
    files, kept = ShardFiles(line.site, line.part, line.shard), {item.name: item for item in index.near}
    for place, entry in enumerate(entries):
        if item := kept.get(entry.name):
            yield (item.kept_site, item.kept_name), Claim(files.near(place, entry.name), entry.sha256)


def _distance(left: AnyArray, kept: AnyArray) -> float:
    return float(distances(views(left[None])[0], prints(views(kept[None])))[0])
