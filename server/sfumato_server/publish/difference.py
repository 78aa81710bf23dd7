"""What differs between two published sets: images by site and method, the plan key by key, the epsilon.

OLD is held as one number and 16 bytes an image, NEW is streamed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sfumato_server.publish.converted import open_statement
from sfumato_server.publish.manifest import ImageEntry
from sfumato_server.publish.reading import PublishedFolder
from sfumato_server.publish.tables import Cover, cover_of

Counts = Mapping[tuple[str, str], int]  # by site and method


@dataclass(frozen=True)
class PlanChange:
    """One key of the plan, with dots between names; None where a plan has no such key."""

    key: str
    old: Any
    new: Any


@dataclass(frozen=True)
class SetDifference:
    """Numbers of images by (site, method), changes of the plan, and the epsilons that cover the sets (None: none does).

    An image is the same when its site and name are. `relabelled` are those whose label, model, method or guarantee
    changed, `redrawn` those whose pixels did: no site does either by itself.
    """

    added: Counts
    removed: Counts
    relabelled: Counts
    redrawn: Counts
    kept: int
    plan: tuple[PlanChange, ...]
    old_cover: Cover | None
    new_cover: Cover | None
    sites_added: tuple[str, ...]
    sites_removed: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        counted = (self.added, self.removed, self.relabelled, self.redrawn, self.plan)
        return not any(counted) and self.old_cover == self.new_cover


def difference(old: Path, new: Path) -> SetDifference:
    """Compare the set in `old` with that in `new`, published or converted; neither is verified.

    Raises ConfigError when one is no such set, VerificationError when it is malformed.
    """
    before, after = open_statement(old), open_statement(new)
    counted, kept = _images(before, after)
    sites = set(before.manifest.sites), set(after.manifest.sites)
    return SetDifference(
        **counted,
        kept=kept,
        plan=tuple(_changes(before.manifest.plan, after.manifest.plan)),
        old_cover=cover_of(before.certificates().values()),
        new_cover=cover_of(after.certificates().values()),
        sites_added=tuple(sorted(sites[1] - sites[0])),
        sites_removed=tuple(sorted(sites[0] - sites[1])),
    )


def _images(before: PublishedFolder, after: PublishedFolder) -> tuple[dict[str, Counts], int]:
    """Counts by what happened, and the number of images that nothing happened to."""
    groups: dict[tuple[str, ...], int] = {}
    index = {
        _key(entry): groups.setdefault(_said(entry), len(groups)) << 64 | _pixels(entry) for entry in before.entries()
    }
    names = list(groups)
    counted: dict[str, Counter[tuple[str, str]]] = {
        what: Counter() for what in ("added", "removed", "relabelled", "redrawn")
    }
    kept = 0
    for entry in after.entries():
        place = entry.site, entry.method
        found = index.pop(_key(entry), None)
        if found is None:
            counted["added"][place] += 1
            continue
        relabelled, redrawn = names[found >> 64] != _said(entry), found & (1 << 64) - 1 != _pixels(entry)
        counted["relabelled"][place] += relabelled
        counted["redrawn"][place] += redrawn
        kept += not (relabelled or redrawn)
    for found in index.values():
        site, _, _, method, _ = names[found >> 64]
        counted["removed"][site, method] += 1
    return {
        what: {place: number for place, number in sorted(own.items()) if number} for what, own in counted.items()
    }, kept


def _key(entry: ImageEntry) -> bytes:
    return hashlib.blake2b(f"{entry.site}/{entry.name}".encode("ascii"), digest_size=16).digest()


def _said(entry: ImageEntry) -> tuple[str, ...]:
    return entry.site, entry.label, entry.model, entry.method, entry.guarantee


def _pixels(entry: ImageEntry) -> int:
    return int(entry.pixel_sha256[:16], 16)


def _changes(old: Any, new: Any, key: str = "") -> Iterator[PlanChange]:
    """Leaves that differ, in the order of their keys; lists are compared place by place."""
    if isinstance(old, list) and isinstance(new, list):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}, key=str):
            yield from _changes(old.get(name), new.get(name), f"{key}.{name}" if key else str(name))
    elif old != new:
        yield PlanChange(key, old, new)


def lines(found: SetDifference) -> list[str]:
    """The difference for the screen."""
    said = [f"images kept as they are: {found.kept}"]
    for what in ("added", "removed", "relabelled", "redrawn"):
        counts: Counts = getattr(found, what)
        said.append(f"images {what}: {sum(counts.values())}")
        said += [f"  {number:>9}  {site}, {method}" for (site, method), number in counts.items()]
    said += [f"site added: {site}" for site in found.sites_added]
    said += [f"site removed: {site}" for site in found.sites_removed]
    said += [f"plan: {one.key}: {_word(one.old)} -> {_word(one.new)}" for one in found.plan]
    said.append(f"epsilon: {_covered(found.old_cover)} -> {_covered(found.new_cover)}")
    return said


def values(found: SetDifference) -> dict[str, Any]:
    """The difference as JSON values."""
    counted = {
        what: [{"site": site, "method": method, "images": number} for (site, method), number in own.items()]
        for what in ("added", "removed", "relabelled", "redrawn")
        for own in [getattr(found, what)]
    }
    covers = {
        name: None if cover is None else asdict(cover)
        for name, cover in (("epsilon_old", found.old_cover), ("epsilon_new", found.new_cover))
    }
    sites = {"sites_added": list(found.sites_added), "sites_removed": list(found.sites_removed)}
    plan = [asdict(one) for one in found.plan]
    return {**counted, "kept": found.kept, "plan": plan, **covers, **sites, "same": found.same, "verified": False}


def _word(value: Any) -> str:
    return "none" if value is None else str(value)


def _covered(cover: Cover | None) -> str:
    if cover is None:
        return "none holds"
    return f"{cover.epsilon:.4f} at delta {cover.delta:g} (unit: {cover.unit}, adjacency: add/remove, the worst site's)"
