"""What every card of a published set is rendered from: one frozen record of counts, certificates and words of the plan.

No card needs an image. Counts are of synthetic images, and all of them are in the set's own tables.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sfumato_common.study.certificate import Certificate
from sfumato_common.study.plan import Plan
from sfumato_common.study.publication import PublicationTerms
from sfumato_server.publish.guarantee import Guarantee, PooledCost, guarantees, pooled_costs
from sfumato_server.publish.layout import ShardFiles
from sfumato_server.publish.manifest import LABELS, FileEntry, PublishedManifest
from sfumato_server.publish.tables import Cover, Split, cover_of
from sfumato_server.publish.tally import Group, Tallies


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
    tallies: Tallies,
    certificates: Mapping[str, Certificate],
    coordinator_key: bytes,
    run: Mapping[str, Any],
) -> SetFacts:
    """The facts of a set from the tallies of all its shards.

    `manifest` lists at least labels.csv among its files, and every shard.
    """
    return SetFacts(
        plan=plan,
        created=manifest.created,
        plan_hash=manifest.plan_hash,
        left_out=dict(manifest.left_out),
        duplicates=sum(line.duplicates for line in manifest.shards),
        near=sum(line.near for line in manifest.shards),
        withdrawn=sum(line.withdrawn for line in manifest.shards),
        tally=dict(tallies.groups),
        examples={split: tuple(found) for split, found in tallies.examples.items()},
        pixels=tallies.pixels.hexdigest(),
        labels=manifest.files[LABELS],
        certificates=dict(certificates),
        statements={ShardFiles(line.site, line.part, line.shard).head: line.head for line in manifest.shards},
        coordinator_key=coordinator_key,
        run={name: run[name] for name in ("utility", "choice", "versions") if run.get(name)},
    )
