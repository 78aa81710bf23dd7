"""Puts the admitted packages of a study together, shard by shard; every one is verified again from its file on disk."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from operator import attrgetter
from pathlib import Path

from sfumato_common.errors import FederationError, VerificationError
from sfumato_common.study.balance import Balance, Signed
from sfumato_common.study.certificate import Certificate
from sfumato_common.study.lineage import package_sites, plan_of_site
from sfumato_common.study.plan import Plan
from sfumato_common.study.shards import shard_sizes, shards_at
from sfumato_common.study.words import Part
from sfumato_server.enrol.answered import check_answered
from sfumato_server.enrol.registry import Registry, SiteRecord
from sfumato_server.intake.admission import Contents, package_path, possible_contents
from sfumato_server.pool.admitting import ADMIT, Admitted, admitted, task_of
from sfumato_server.pool.duplicates import Duplicates
from sfumato_server.pool.near import earlier_first, find_near
from sfumato_server.pool.pool import Pool, PoolShard, Source
from sfumato_server.pool.withdrawn import read_withdrawn
from sfumato_server.workers import ALONE, Task, Where, run_tasks

log = logging.getLogger(__name__)
# what is said of an image that images are counted by
_said = attrgetter("label", "model", "method", "guarantee")
FAULTY = "what it sent does not hold"


def pool_packages(
    home: Path,
    plan: Plan,
    registry: Registry,
    progress: Callable[[int], None] = lambda images: None,
    compared: Callable[[int], None] = lambda images: None,
    where: Where = ALONE,
) -> Pool:
    """Pool what the plan's enrolled sites have sent under this plan; one shard's statement is in memory at a time.

    A site of which a package does not hold, or packages disagree, is left out whole, and `left_out` says so; so is a
    part of which a shard is missing. `progress` is told how many images have been verified since it was told last, and
    `compared` how many were looked through for near-duplicates; `where` says by how many workers packages are verified.
    Raises FederationError when no package is left, ConfigError where the plan's 'balance' leaves nothing.
    """
    shards: list[PoolShard] = []
    left_out: dict[str, str] = {}
    sites: list[SiteRecord] = []
    for site in package_sites(plan):
        try:
            sites.append(registry.record_in_force(site))
        except FederationError:
            left_out[site] = "not enrolled, or revoked"
    found, reasons = _admitted(home, plan, sites, progress, where)
    for record in sites:
        site = record.site
        try:
            if site in reasons:
                raise VerificationError(reasons[site])
            own, lacking = _sound_shards(home, plan_of_site(plan, site), record, found.pop(site, {}))
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
    counts, duplicates = _without_duplicates(shards, list(plan.sites))
    certificates = {shard.head.site: shard.head.certificate for shard in shards}
    pool = Pool(tuple(shards), certificates, counts, duplicates, None, left_out)
    if plan.balance is not None:
        pool = replace(pool, balance=Balance.of(plan, _alone(shards, duplicates)))
    if plan.near_duplicates is None:
        pool = replace(pool, near=find_near(pool, list(plan.sites), read_withdrawn(home), compared))
    return replace(pool, counts=_counted(pool)) if plan.balance or (pool.near and len(pool.near)) else pool


def _admitted(
    home: Path, plan: Plan, sites: Sequence[SiteRecord], progress: Callable[[int], None], where: Where
) -> tuple[dict[str, dict[Part, list[Admitted]]], dict[str, str]]:
    """All packages that hold by site and part, in order, and what is wrong with the first that does not, by site."""
    found: dict[str, dict[Part, list[Admitted]]] = {}
    reasons: dict[str, str] = {}
    text = plan.model_dump_json()

    def tasks() -> Iterator[Task]:
        for record in sites:
            for part, number in shards_at(plan_of_site(plan, record.site), record.site):
                path = package_path(home, record.site, part, number)
                if record.site not in reasons and path.exists():
                    yield task_of(path, text, record, part, number)

    for task, answer in run_tasks(ADMIT, tasks(), where):
        site, part = task["record"]["site"], task["part"]
        try:
            package = admitted(task, answer)
        except VerificationError as error:
            reasons.setdefault(site, str(error))
            continue
        found.setdefault(site, {}).setdefault(part, []).append(package)
        progress(package.shard.head.images)
    return found, reasons


def _sound_shards(
    home: Path, plan: Plan, record: SiteRecord, found: Mapping[Part, Sequence[Admitted]]
) -> tuple[list[PoolShard], list[str]]:
    """All shards of the parts that a site sent whole, and what it did not.

    Raises VerificationError when they disagree, or together are not what was asked for.
    """
    own: list[PoolShard] = []
    lacking: list[str] = []
    stated: Certificate | None = None
    for part in plan.parts_at(record.site):
        packages = found.get(part, ())
        missing = _lacking(plan, record.site, part, packages)
        lacking += [missing] if missing else []
        for package in packages:
            if stated is not None and package.shard.head.certificate != stated:
                raise VerificationError("its packages state different costs")
            stated = package.shard.head.certificate
        own += [] if missing else [package.shard for package in packages]
    if stated is not None:
        check_answered(stated, plan, record.site, home)
    return own, lacking


def _lacking(plan: Plan, site: str, part: Part, packages: Sequence[Admitted]) -> str:
    """What is missing of a part in words. Raises VerificationError where its shards are not one release together."""
    for before, package in pairwise(packages):
        if package.first <= before.last:
            raise VerificationError("the names of its shards overlap, so that an image may be there twice")
    of = len(shard_sizes(plan, site, part))
    if len(packages) < of:
        return f"only {len(packages)} of {of} {part} packages" if packages else f"no {part} package"
    if sum((package.held for package in packages), Contents()) not in possible_contents(plan, site, part):
        raise VerificationError("its shards together do not hold what the plan's release asks for")
    return ""


def _without_duplicates(shards: Sequence[PoolShard], asked: Sequence[str]) -> tuple[Counter[Source], Duplicates]:
    """The first of each set of equal pixels, counted; the others are listed. Sites that were not `asked` come first."""
    counts: Counter[Source] = Counter()
    duplicates = Duplicates()
    for place, shard in earlier_first(shards, asked):
        site, entries = shard.head.site, shard.entries()
        twice = duplicates.add(place, site, entries)
        counts.update(Source(site, *_said(entry)) for entry in entries if entry.name not in twice)
    return counts, duplicates


def _alone(shards: Sequence[PoolShard], duplicates: Duplicates) -> Iterator[Signed]:
    """What could be published: all but duplicates."""
    for place, shard in enumerate(shards):
        twice = duplicates.of(place)
        yield from ((shard.head.site, own.name, own.label) for own in shard.entries() if own.name not in twice)


def _counted(pool: Pool) -> Counter[Source]:
    """The images that are published, by source."""
    counts: Counter[Source] = Counter()
    for place, shard in enumerate(pool.shards):
        entries = shard.entries()
        left = pool.left_of(place, entries).names
        counts.update(Source(shard.head.site, *_said(entry)) for entry in entries if entry.name not in left)
    return counts
