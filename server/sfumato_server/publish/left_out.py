"""Images that a site signed and the set leaves out: those that are there already, or nearly, and those not drawn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.study.balance import Balance
from sfumato_common.study.plan import Plan
from sfumato_server.publish.manifest import MANIFEST, PublishedManifest
from sfumato_server.publish.near import Claims
from sfumato_server.publish.shard import read_shard


def check_left_out(folder: Path, manifest: PublishedManifest, plan: Plan, pictures: bool) -> None:
    """Raise VerificationError where the set leaves out more than duplicates and what its plan's draw leaves out.

    Without `pictures`, which need not be there, what is left out as nearly another image is not compared with it.
    """
    _check_twice(folder, manifest)
    _check_drawn(folder, manifest, plan)
    claims = Claims(folder, manifest, plan)
    if pictures:
        claims.check_folder(folder)


def _check_twice(folder: Path, manifest: PublishedManifest) -> None:
    """What is said to be another image's pixels has that image's pixels, and the other is no duplicate itself."""
    wanted: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for line in manifest.shards:
        if line.duplicates:
            _, entries, index = read_shard(folder, line)
            pixels = {entry.name: entry.pixel_sha256 for entry in entries}
            for item in index.duplicates:
                wanted[item.kept_site][item.kept_name].add(pixels[item.name])
    for line in manifest.shards:
        if own := wanted.get(line.site):
            _, entries, index = read_shard(folder, line)
            twice = {item.name for item in index.duplicates}
            for entry in entries:
                if own.get(entry.name) == {entry.pixel_sha256} and entry.name not in twice:
                    del own[entry.name]
    if left := sorted(site for site, own in wanted.items() if own):
        raise VerificationError(f"{MANIFEST} leaves out images as those of site '{left[0]}', which they do not equal")


def _check_drawn(folder: Path, manifest: PublishedManifest, plan: Plan) -> None:
    """What is left out beside duplicates is what the plan's public draw leaves out, and no more."""
    if plan.balance is None:
        if any(line.undrawn for line in manifest.shards):
            raise VerificationError(f"{MANIFEST} leaves out images that a site signed, and its plan draws none")
        return

    def alone() -> Iterator[tuple[str, str, str, bool]]:
        for line in manifest.shards:
            _, entries, index = read_shard(folder, line)
            twice, undrawn = {item.name for item in index.duplicates}, set(index.undrawn)
            for own in entries:
                if own.name not in twice:
                    yield line.site, own.name, own.label, own.name in undrawn

    try:
        balance = Balance.of(plan, ((site, name, label) for site, name, label, _ in alone()))
    except ConfigError as error:
        raise VerificationError(f"{MANIFEST}: {error}") from None
    if any(balance.stays(site, name, label) == undrawn for site, name, label, undrawn in alone()):
        raise VerificationError(f"{MANIFEST} holds other images than its plan draws")
