"""Puts the admitted packages of a study together, shard by shard; every one is verified again from its file on disk."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from sfumato_common.errors import FederationError, VerificationError
from sfumato_common.package import Package
from sfumato_common.study.balance import Balance, Signed
from sfumato_common.study.certificate import Certificate
from sfumato_common.study.lineage import package_sites, plan_of_site
from sfumato_common.study.plan import Plan
from sfumato_common.study.shards import shard_sizes
from sfumato_common.study.words import Part
from sfumato_server.enrol.answered import check_answered
from sfumato_server.enrol.registry import Registry, SiteRecord
from sfumato_server.intake.admission import Contents, admit, contents, package_path, possible_contents
from sfumato_server.pool.duplicates import Duplicates
from sfumato_server.pool.near import find_near
from sfumato_server.pool.pool import Pool, PoolShard, Source
from sfumato_server.pool.withdrawn import read_withdrawn

log = logging.getLogger(__name__)
FAULTY = "what it sent does not hold"


def pool_packages(
    home: Path,
    plan: Plan,
    registry: Registry,
    progress: Callable[[int], None] = lambda images: None,
    compared: Callable[[int], None] = lambda images: None,
) -> Pool:
    """Pool what the plan's enrolled sites have sent under this plan; one shard's statement is in memory at a time.

    A site of which a package does not hold, or packages disagree, is left out whole, and `left_out` says so; so is a
    part of which a shard is missing. `progress` is told how many images have been verified since it was told last, and
    `compared` how many were looked through for near-duplicates.
    Raises FederationError when no package is left, ConfigError where the plan's 'balance' leaves nothing.
    """
    shards: list[PoolShard] = []
    left_out: dict[str, str] = {}
    for site in package_sites(plan):
        try:
            record = registry.record_in_force(site)
        except FederationError:
            left_out[site] = "not enrolled, or revoked"
            continue
        try:
            own, lacking = _sound_shards(home, plan_of_site(plan, site), record, progress)
        except VerificationError as error:
            log.warning("site %s is left out: %s; delete its package and let it send again", site, error)
            left_out[site] = FAULTY
            continue
        if lacking:
            sent_none = not own and all(which.startswith("no ") for which in lacking)
            left_out[site] = "sent no package" if sent_none else f"sent {' and '.join(lacking)}"
        shards += own
    if not shards:
        raise FederationError("no site has sent a package for this plan; nothing can be pooled")
    counts, duplicates = _without_duplicates(shards)
    certificates = {shard.head.site: shard.head.certificate for shard in shards}
    pool = Pool(tuple(shards), certificates, counts, duplicates, None, left_out)
    if plan.balance is not None:
        pool = replace(pool, balance=Balance.of(plan, _alone(shards, duplicates)))
    if plan.near_duplicates is None:
        pool = replace(pool, near=find_near(pool, list(plan.sites), read_withdrawn(home), compared))
    return replace(pool, counts=_counted(pool)) if plan.balance or (pool.near and len(pool.near)) else pool


def _sound_shards(
    home: Path, plan: Plan, record: SiteRecord, progress: Callable[[int], None]
) -> tuple[list[PoolShard], list[str]]:
    """All shards of the parts that a site sent whole, and what it did not.

    Raises VerificationError when one of them does not hold, or they disagree.
    """
    own: list[PoolShard] = []
    lacking: list[str] = []
    stated: Certificate | None = None
    for part in plan.parts_at(record.site):
        found, missing = _part(home, plan, record, part, progress)
        lacking += [missing] if missing else []
        for shard in found:
            if stated is not None and shard.head.certificate != stated:
                raise VerificationError("its packages state different costs")
            stated = shard.head.certificate
        own += [] if missing else found
    if stated is not None:
        check_answered(stated, plan, record.site, home)
    return own, lacking


def _part(
    home: Path, plan: Plan, record: SiteRecord, part: Part, progress: Callable[[int], None]
) -> tuple[list[PoolShard], str]:
    """The shards of one part that a site sent, and what is missing in words. Raises VerificationError as `admit`."""
    found: list[PoolShard] = []
    held: Contents = Counter()
    last = ""
    of = len(shard_sizes(plan, record.site, part))
    for number in range(1, of + 1):
        path = package_path(home, record.site, part, number)
        if not path.exists():
            continue
        package = admit(path, plan, record)
        _check_place(package, part, number, last)
        last = package.entries[-1].name
        held += contents(package)
        found.append(PoolShard(package.head, package.signature, record.signing_key.encode(), path))
        progress(package.head.images)
    if len(found) < of:
        return found, f"only {len(found)} of {of} {part} packages" if found else f"no {part} package"
    if held not in possible_contents(plan, record.site, part):
        raise VerificationError("its shards together do not hold what the plan's release asks for")
    return found, ""


def _check_place(package: Package, part: Part, number: int, last: str) -> None:
    """The shard is the one that it is filed as, and its names come after those of the one before: none comes twice."""
    if package.head.part != part:
        raise VerificationError("a stored package holds another part of the release than it is filed under")
    if package.head.shard != number:
        raise VerificationError("a stored package is another shard than it is filed under")
    if package.entries[0].name <= last:
        raise VerificationError("the names of its shards overlap, so that an image may be there twice")


def _without_duplicates(shards: Sequence[PoolShard]) -> tuple[Counter[Source], Duplicates]:
    """The first of each set of equal pixels, in the order of sites, parts and names, counted; the others are listed."""
    counts: Counter[Source] = Counter()
    duplicates = Duplicates()
    for place, shard in enumerate(shards):
        site = shard.head.site
        for entry in shard.package().entries:
            if duplicates.is_first(place, site, entry.name, entry.pixel_sha256):
                counts[Source(site, entry.label, entry.model, entry.method, entry.guarantee)] += 1
    return counts, duplicates


def _alone(shards: Sequence[PoolShard], duplicates: Duplicates) -> Iterator[Signed]:
    """What could be published: all but duplicates."""
    for place, shard in enumerate(shards):
        twice = duplicates.of(place)
        yield from ((shard.head.site, own.name, own.label) for own in shard.package().entries if own.name not in twice)


def _counted(pool: Pool) -> Counter[Source]:
    """The images that are published, by source."""
    counts: Counter[Source] = Counter()
    for place, shard in enumerate(pool.shards):
        entries = shard.package().entries
        left = pool.left_of(place, entries).names
        for entry in entries:
            if entry.name not in left:
                counts[Source(shard.head.site, entry.label, entry.model, entry.method, entry.guarantee)] += 1
    return counts
