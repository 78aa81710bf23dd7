"""Puts the admitted packages of a study together; every one is verified again from its bytes on disk."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sfumato_common.errors import FederationError, VerificationError
from sfumato_common.package import Package
from sfumato_common.package.manifest import ImageFacts
from sfumato_common.study.balance import Balance
from sfumato_common.study.certificate import Certificate
from sfumato_common.study.lineage import package_sites, plan_of_site
from sfumato_common.study.plan import Plan
from sfumato_common.study.words import Part
from sfumato_server.enrol.answered import check_answered
from sfumato_server.enrol.registry import Registry, SiteRecord
from sfumato_server.intake.admission import admit, package_path

log = logging.getLogger(__name__)
FAULTY = "what it sent does not hold"


@dataclass(frozen=True)
class PoolItem:
    """One image of the pool, with what its site says it is; `pixel_sha256` is over its decoded pixels."""

    site: str
    facts: ImageFacts
    png: bytes
    pixel_sha256: str


@dataclass(frozen=True)
class Duplicate:
    """An image that was left out because the same pixels are in the pool already, under `kept_site`."""

    site: str
    name: str
    kept_site: str
    kept_name: str


@dataclass(frozen=True)
class Provenance:
    """What ties a site's images to its own key: the signed manifest, its signature, the public key (PEM)."""

    manifest: bytes
    signature: bytes
    public_key: bytes


@dataclass(frozen=True)
class Pool:
    """All admitted images by site and name; certificates by site, provenance by package; what was left out and why."""

    items: tuple[PoolItem, ...]
    certificates: Mapping[str, Certificate]
    provenance: Mapping[tuple[str, Part], Provenance]
    duplicates: tuple[Duplicate, ...]
    left_out: Mapping[str, str]

    @property
    def sites(self) -> list[str]:
        """Names of the sites that images came from, sorted."""
        return sorted({site for site, _ in self.provenance})


def pool_packages(home: Path, plan: Plan, registry: Registry) -> Pool:
    """Pool what the plan's enrolled sites have sent under this plan.

    A site of which a package does not hold, or packages disagree, is left out whole, and `left_out` says so. Raises
    FederationError when no package is left, ConfigError where the plan's 'balance' leaves nothing.
    """
    packages: dict[tuple[str, Part], tuple[Package, bytes]] = {}
    left_out: dict[str, str] = {}
    for site in package_sites(plan):
        try:
            record = registry.record_in_force(site)
        except FederationError:
            left_out[site] = "not enrolled, or revoked"
            continue
        try:
            own = _sound_packages(home, plan_of_site(plan, site), record)
        except VerificationError as error:
            log.warning("site %s is left out: %s; delete its package and let it send again", site, error)
            left_out[site] = FAULTY
            continue
        if missing := [part for part in plan_of_site(plan, site).parts_at(site) if part not in own]:
            left_out[site] = f"sent no {' and no '.join(missing)} package" if own else "sent no package"
        packages |= {(site, part): (package, record.signing_key.encode()) for part, package in own.items()}
    if not packages:
        raise FederationError("no site has sent a package for this plan; nothing can be pooled")
    items, duplicates = _without_duplicates([item for package, _ in packages.values() for item in _items(package)])
    balance = Balance.of(plan, ((item.site, item.facts.name, item.facts.label) for item in items))
    return Pool(
        items=tuple(item for item in items if balance.stays(item.site, item.facts.name, item.facts.label)),
        certificates={site: package.certificate for (site, _), (package, _) in packages.items()},
        provenance={
            which: Provenance(package.manifest, package.signature, key) for which, (package, key) in packages.items()
        },
        duplicates=duplicates,
        left_out=left_out,
    )


def _sound_packages(home: Path, plan: Plan, record: SiteRecord) -> dict[Part, Package]:
    """All that a site sent, by part. Raises VerificationError when one of them does not hold, or they disagree."""
    own = {
        part: package
        for part in plan.parts_at(record.site)
        if (package := _read_stored(home, plan, record, part)) is not None
    }
    stated = [package.certificate for package in own.values()]
    if any(other != stated[0] for other in stated):
        raise VerificationError("its packages state different costs")
    for certificate in stated[:1]:
        check_answered(certificate, plan, record.site, home)
    return own


def _read_stored(home: Path, plan: Plan, record: SiteRecord, part: Part) -> Package | None:
    """The package of one part that a site sent; None when it sent none. Raises VerificationError as `admit`."""
    path = package_path(home, record.site, part)
    if not path.exists():
        return None
    package = admit(path.read_bytes(), plan, record)
    if package.part != part:
        raise VerificationError("a stored package holds another part of the release than it is filed under")
    return package


def _items(package: Package) -> list[PoolItem]:
    return [
        PoolItem(package.site, image.facts, image.png, package.pixel_hashes[image.facts.name])
        for image in package.images
    ]


def _without_duplicates(items: list[PoolItem]) -> tuple[tuple[PoolItem, ...], tuple[Duplicate, ...]]:
    """The first of each set of equal pixels, in the order of sites and names; the others are listed."""
    kept: dict[str, PoolItem] = {}
    duplicates: list[Duplicate] = []
    for item in items:
        first = kept.setdefault(item.pixel_sha256, item)
        if first is not item:
            duplicates.append(Duplicate(item.site, item.facts.name, first.site, first.facts.name))
    return tuple(kept.values()), tuple(duplicates)
