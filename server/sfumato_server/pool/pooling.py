"""Puts the admitted packages of a study together; every one is verified again from its bytes on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato_common.errors import FederationError, VerificationError
from sfumato_common.package import Package
from sfumato_common.package.manifest import Guarantee
from sfumato_common.study.plan import Plan
from sfumato_server.enrol.registry import Registry
from sfumato_server.intake.admission import admit, package_path


@dataclass(frozen=True)
class PoolItem:
    """One image of the pool, with what its site says it is; `pixel_sha256` is over its decoded pixels."""

    site: str
    name: str
    label: str
    model: str
    method: str
    guarantee: Guarantee
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
    """All admitted images by site and name; certificates and provenance by site; what was left out and why."""

    items: tuple[PoolItem, ...]
    certificates: Mapping[str, Mapping[str, Any]]
    provenance: Mapping[str, Provenance]
    duplicates: tuple[Duplicate, ...]
    left_out: Mapping[str, str]


def pool_packages(home: Path, plan: Plan, registry: Registry) -> Pool:
    """Pool what the plan's enrolled sites have sent under this plan.

    Raises FederationError when there is no package at all, VerificationError when a stored one no longer holds.
    """
    packages: dict[str, tuple[Package, bytes]] = {}
    left_out: dict[str, str] = {}
    for site in sorted(plan.sites):
        try:
            record = registry.enrolled(site)
        except FederationError:
            left_out[site] = "not enrolled, or revoked"
            continue
        path = package_path(home, site)
        if not path.exists():
            left_out[site] = "sent no package"
            continue
        try:
            packages[site] = (admit(path.read_bytes(), plan, record), record.signing_key.encode())
        except VerificationError as error:
            raise VerificationError(
                f"the stored package of site '{site}' does not hold ({error}); delete it and let the site send it again"
            ) from None
    if not packages:
        raise FederationError("no site has sent a package for this plan; nothing can be pooled")
    items, duplicates = _without_duplicates([item for package, _ in packages.values() for item in _items(package)])
    return Pool(
        items=items,
        certificates={site: package.certificate for site, (package, _) in packages.items()},
        provenance={
            site: Provenance(package.manifest, package.signature, key) for site, (package, key) in packages.items()
        },
        duplicates=duplicates,
        left_out=left_out,
    )


def _items(package: Package) -> list[PoolItem]:
    return [
        PoolItem(
            site=package.site,
            name=image.name,
            label=image.label,
            model=image.model,
            method=image.method,
            guarantee=image.guarantee,
            png=image.png,
            pixel_sha256=package.pixel_hashes[image.name],
        )
        for image in package.images
    ]


def _without_duplicates(items: list[PoolItem]) -> tuple[tuple[PoolItem, ...], tuple[Duplicate, ...]]:
    """The first of each set of equal pixels, in the order of sites and names; the others are listed."""
    kept: dict[str, PoolItem] = {}
    duplicates: list[Duplicate] = []
    for item in items:
        first = kept.setdefault(item.pixel_sha256, item)
        if first is not item:
            duplicates.append(Duplicate(item.site, item.name, first.site, first.name))
    return tuple(kept.values()), tuple(duplicates)
