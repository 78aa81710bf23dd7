"""What every card of a published set is rendered from: one frozen record of counts, certificates and words of the plan.

No card needs an image. Counts are of synthetic images, and all of them are in the set's own tables.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sfumato_common.study.certificate import Certificate
from sfumato_common.study.plan import Plan
from sfumato_common.study.publication import PublicationTerms
from sfumato_server.publish.guarantee import Guarantee, PooledCost, guarantees, pooled_costs
from sfumato_server.publish.layout import ShardFiles
from sfumato_server.publish.manifest import LABELS, FileEntry, ImageEntry, PublishedManifest
from sfumato_server.publish.tables import SPLITS, Cover, Split, cover_of, level_of, split_of


class Group(NamedTuple):
    """Images that are said to be alike in everything but their names."""

    site: str
    label: str
    model: str
    method: str
    guarantee: str
    split: Split


@dataclass(frozen=True)
class SetFacts:
    """All that cards say.

    `tally` has the number of images of each group, `examples` two files of each split. `duplicates`, `near` and
    `withdrawn` images are left out: for equal pixels, for nearly equal ones, for what an earlier version withdrew.
    `pixels` is sha256 over a line `SITE/NAME PIXEL_SHA256` for every image in the manifest's order. `statements` are
    hashes of the sites' signed manifests by file. `run` may hold `utility`, `choice` and `versions`.
    """

    plan: Plan
    created: str
    plan_hash: str
    left_out: Mapping[str, str]
    duplicates: int
    near: int
    withdrawn: int
    tally: Mapping[Group, int]
    examples: Mapping[Split, tuple[str, ...]]
    pixels: str
    labels: FileEntry
    certificates: Mapping[str, Certificate]
    statements: Mapping[str, str]
    coordinator_key: bytes
    run: Mapping[str, Any]

    @property
    def images(self) -> int:
        """The number of images."""
        return sum(self.tally.values())

    @property
    def sites(self) -> list[str]:
        """Names of the sites whose packages are in the set, sorted."""
        return sorted(self.certificates)

    @property
    def terms(self) -> PublicationTerms:
        """What the plan says for the cards; nothing is stated where it says nothing."""
        return self.plan.publication or PublicationTerms()

    @property
    def title(self) -> str:
        """The set's title: the plan's, or one made from the study's name."""
        return self.terms.title or f"{self.plan.study}: synthetic images of {len(self.sites)} sites"

    @property
    def guarantees(self) -> list[Guarantee]:
        """Sites grouped by what their certificates state."""
        return guarantees(self.certificates)

    @property
    def pooled(self) -> list[PooledCost]:
        """What the pooled set costs a patient of one site, and one who is known to two."""
        return pooled_costs(self.guarantees)

    @property
    def cover(self) -> Cover | None:
        """The epsilon that covers images of a formal level; None where nothing covers any."""
        return cover_of(self.certificates.values())

    def by(self, *fields: str) -> list[tuple[tuple[str, ...], int]]:
        """Numbers of images by some fields of `Group`, in the order of their words."""
        counts: Counter[tuple[str, ...]] = Counter()
        for group, number in self.tally.items():
            counts[tuple(getattr(group, field) for field in fields)] += number
        return sorted(counts.items())

    def of_split(self, split: Split) -> int:
        """The number of images of a split."""
        return sum(number for group, number in self.tally.items() if group.split == split)


def gather(
    manifest: PublishedManifest,
    plan: Plan,
    entries: Iterable[ImageEntry],
    certificates: Mapping[str, Certificate],
    coordinator_key: bytes,
    run: Mapping[str, Any],
) -> SetFacts:
    """The facts of a set, whose `entries` are read once and not kept.

    `manifest` lists at least labels.csv among its files, and every shard.
    """
    tally: Counter[Group] = Counter()
    cover = cover_of(certificates.values())
    examples: dict[Split, list[str]] = {split: [] for split in SPLITS}
    pixels = hashlib.sha256()
    for entry in entries:
        split = split_of(entry)
        tally[Group(entry.site, entry.label, entry.model, entry.method, level_of(entry, cover), split)] += 1
        pixels.update(f"{entry.site}/{entry.name} {entry.pixel_sha256}\n".encode("ascii"))
        if len(examples[split]) < 2:
            examples[split].append(entry.file)
    return SetFacts(
        plan=plan,
        created=manifest.created,
        plan_hash=manifest.plan_hash,
        left_out=dict(manifest.left_out),
        duplicates=sum(line.duplicates for line in manifest.shards),
        near=sum(line.near for line in manifest.shards),
        withdrawn=sum(line.withdrawn for line in manifest.shards),
        tally=dict(tally),
        examples={split: tuple(found) for split, found in examples.items()},
        pixels=pixels.hexdigest(),
        labels=manifest.files[LABELS],
        certificates=dict(certificates),
        statements={ShardFiles(line.site, line.part, line.shard).head: line.head for line in manifest.shards},
        coordinator_key=coordinator_key,
        run={name: run[name] for name in ("utility", "choice", "versions") if run.get(name)},
    )
