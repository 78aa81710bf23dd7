"""Offline check of a published data set: every byte back to the coordinator's signature, every image to its site's."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from sfumato_common.crypto.signatures import fingerprint, is_same_key, verify
from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.package import check_image
from sfumato_common.package.features import FILE
from sfumato_common.package.manifest import Manifest, ManifestImage, parse_manifest
from sfumato_common.strict import parse
from sfumato_common.study.balance import Balance
from sfumato_common.study.costs import WITHOUT_PRIVACY
from sfumato_common.study.lineage import plan_of_site, require_whole
from sfumato_common.study.plan import Plan
from sfumato_common.study.words import Part, has_epsilon, is_fill
from sfumato_server.publish.features import check_features, has_features
from sfumato_server.publish.manifest import (
    COORDINATOR_KEY,
    LABELS,
    MANIFEST,
    SIGNATURE,
    ImageEntry,
    PublishedManifest,
    expected_files,
    image_file,
    labels_csv,
    parse_published,
    provenance_files,
)

UNVERIFIED = "UNVERIFIED ORIGIN"


@dataclass(frozen=True)
class VerificationReport:
    """What was found to hold. `trusted`: the coordinator's key was compared with one that the caller brought.

    `site_fingerprints` are of the keys that sites signed with, `compared_sites` those whose key the caller brought too.
    `private` is what the plan says: where it is not, the weights behind the images left without differential privacy.
    """

    study: str
    plan_hash: str
    images: int
    sites: tuple[str, ...]
    coordinator_fingerprint: str
    trusted: bool
    site_fingerprints: Mapping[str, str]
    compared_sites: tuple[str, ...]
    private: bool

    def summary(self) -> str:
        """One line for the screen."""
        key = f"the coordinator's key {self.coordinator_fingerprint}"
        untrusted = f"{UNVERIFIED}: {key} was NOT compared with a trusted one"
        trust = f"{key} is the trusted one" if self.trusted else untrusted
        what = f"study '{self.study}': {self.images} images of {', '.join(self.sites)}"
        warning = "" if self.private else f"; NO PRIVACY: {WITHOUT_PRIVACY}"
        return f"{what}: all hashes and signatures hold; {trust}{warning}"

    def key_lines(self) -> list[str]:
        """A line a site: its key's fingerprint, and whether it was compared with one that the caller brought."""
        compared = {site: "compared" if site in self.compared_sites else "NOT compared" for site in self.sites}
        return [f"key of site '{site}': {self.site_fingerprints[site]} ({compared[site]})" for site in self.sites]


def verify_dataset(
    folder: Path,
    trusted_coordinator_key: bytes | None = None,
    trusted_site_keys: Mapping[str, bytes] = MappingProxyType({}),
) -> VerificationReport:
    """Verify the data set in `folder` against public keys (PEM) that the caller trusts: coordinator's, sites'.

    Without the coordinator's, the key inside is used, and all that is shown is that the set agrees with itself: anybody
    can make such a set. Without a site's, the coordinator may have invented the site.

    Raises VerificationError naming the file at the first thing that does not hold: an altered byte, a missing, extra or
    linked file, an image that its site did not sign. Raises ConfigError when `folder` holds no published set, or
    nothing of a site whose key the caller brought.
    """
    if not (folder / MANIFEST).is_file():
        raise ConfigError(f"'{folder.name}' is not a published data set: no {MANIFEST}; check the path")
    signed, key = _read(folder, MANIFEST), _read(folder, COORDINATOR_KEY)
    if trusted_coordinator_key is not None and not is_same_key(key, trusted_coordinator_key):
        raise VerificationError(f"{COORDINATOR_KEY} is not the trusted coordinator's key")
    try:
        verify(key, "published", signed, _read(folder, SIGNATURE))
    except VerificationError:
        raise VerificationError(f"{SIGNATURE} does not hold for {MANIFEST} and {COORDINATOR_KEY}") from None
    manifest = parse_published(signed)
    plan = _checked_plan(manifest)
    _check_tree(folder, manifest, has_features(plan))
    for name, entry in sorted(manifest.files.items()):
        path = folder / name
        if path.stat().st_size != entry.bytes or hashlib.sha256(path.read_bytes()).hexdigest() != entry.sha256:
            raise VerificationError(f"{name} was altered")
    keys = _site_keys(folder, manifest, trusted_site_keys)
    packages = [
        _site_manifest(folder, site, part, plan_of_site(plan, site))
        for site, parts in manifest.packages.items()
        for part in parts
    ]
    for package in packages:
        _check_filled(plan_of_site(plan, package.site), package)
    _check_images(folder, manifest, packages, plan)
    if has_features(plan):
        check_features(plan, _read(folder, FILE))
    if _read(folder, LABELS) != labels_csv(manifest.images):
        raise VerificationError(f"{LABELS} does not say what {MANIFEST} says")
    return VerificationReport(
        study=manifest.study,
        plan_hash=manifest.plan_hash,
        images=len(manifest.images),
        sites=tuple(manifest.sites),
        coordinator_fingerprint=fingerprint(key),
        trusted=trusted_coordinator_key is not None,
        site_fingerprints={site: fingerprint(own) for site, own in sorted(keys.items())},
        compared_sites=tuple(sorted(trusted_site_keys)),
        private=plan.private,
    )


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError:
        raise VerificationError(f"{name} is missing or cannot be read") from None


def _checked_plan(manifest: PublishedManifest) -> Plan:
    try:
        plan = parse(manifest.plan, Plan, MANIFEST)
    except ConfigError:
        raise VerificationError(f"{MANIFEST} holds no valid plan") from None
    if plan.study_digest != manifest.plan_hash or plan.study != manifest.study:
        raise VerificationError(f"{MANIFEST} states another plan than its hash")
    if not plan.private and any(has_epsilon(image.guarantee) for image in manifest.images):
        raise VerificationError(f"{MANIFEST} claims a formal guarantee where {WITHOUT_PRIVACY}")
    try:
        require_whole(plan)
        levels = {site: plan_of_site(plan, site).guarantee_levels for site in manifest.packages}
    except ConfigError as error:
        raise VerificationError(f"{MANIFEST}: {error}") from None
    if any(image.guarantee != levels.get(image.site, {}).get((image.method, image.model)) for image in manifest.images):
        raise VerificationError(f"{MANIFEST} claims another guarantee of an image than its method has")
    return plan


def _check_tree(folder: Path, manifest: PublishedManifest, features: bool) -> None:
    """The folder holds the listed files as plain files, and nothing else."""
    if set(manifest.files) != expected_files(manifest.packages, manifest.images, features):
        raise VerificationError(f"{MANIFEST} does not list the files that its images and sites need")
    wanted = {*manifest.files, MANIFEST, SIGNATURE}
    folders = {str(parent) for name in wanted for parent in Path(name).parents}
    found = set()
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise VerificationError(f"{name} is not a plain file")
        if name not in (folders if path.is_dir() else wanted):
            raise VerificationError(f"{name} does not belong to the data set")
        found.add(name)
    if missing := sorted(wanted - found):
        raise VerificationError(f"{missing[0]} is missing")


def _site_keys(folder: Path, manifest: PublishedManifest, trusted: Mapping[str, bytes]) -> dict[str, bytes]:
    """The one key of each site, PEM: the same under both parts of its release, and the caller's where one was given."""
    if absent := sorted(set(trusted) - set(manifest.packages)):
        raise ConfigError(f"a key of site '{absent[0]}' was given, but the set holds nothing of it; leave that out")
    keys = {}
    for site, parts in manifest.packages.items():
        files = [provenance_files(site, part)[2] for part in parts]
        own = [_read(folder, name) for name in files]
        keys[site] = trusted.get(site, own[0])
        for name, key in zip(files, own, strict=True):
            if not is_same_key(key, keys[site]):
                what = "the trusted key" if site in trusted else "the key of another part of its release"
                raise VerificationError(f"{name}: the key that site '{site}' signed with is not {what}")
    return keys


def _site_manifest(folder: Path, site: str, part: Part, plan: Plan) -> Manifest:
    """A site's own statement about one part, its signature checked with the key beside it."""
    signed, signature, key = (_read(folder, name) for name in provenance_files(site, part))
    try:
        verify(key, "package", signed, signature)
        manifest = parse_manifest(signed)
    except VerificationError:
        raise VerificationError(f"provenance/{site}: the site's signature does not hold") from None
    if (manifest.site, manifest.part, manifest.study, manifest.plan_hash) != (
        site,
        part,
        plan.study,
        plan.digest_at(site),
    ):
        raise VerificationError(f"provenance/{site}: signed for another site, part, study or plan")
    return manifest


def _check_images(folder: Path, published: PublishedManifest, packages: Sequence[Manifest], plan: Plan) -> None:
    """Each image is one that its site signed, as what it is said to be; no package image is unaccounted for."""
    signed = {(manifest.site, entry.name): (entry, manifest) for manifest in packages for entry in manifest.images}
    if len(signed) != sum(len(manifest.images) for manifest in packages):
        raise VerificationError("a site signed two images under one name")
    twice = {(duplicate.site, duplicate.name) for duplicate in published.duplicates}
    alone = [(*which, entry.label) for which, (entry, _) in signed.items() if which not in twice]
    try:
        balance = Balance.of(plan, alone)
    except ConfigError as error:
        raise VerificationError(f"{MANIFEST}: {error}") from None
    drawn = {(site, name) for site, name, label in alone if balance.stays(site, name, label)}
    for image in published.images:
        name = image_file(image.site, image.name)
        found = signed.pop((image.site, image.name), None)
        if found is None or not _same(image, found[0]):
            raise VerificationError(f"{name} is not what site '{image.site}' signed")
        entry, manifest = found
        try:
            check_image(entry, _read(folder, name), manifest.shape, manifest.bits)
        except VerificationError:
            raise VerificationError(f"{name} is not the picture that site '{image.site}' signed") from None
    if {(image.site, image.name) for image in published.images} != drawn or not twice <= set(signed):
        raise VerificationError(f"{MANIFEST} leaves out images that a site signed, or holds others than the plan draws")


def _check_filled(plan: Plan, package: Manifest) -> None:
    """As many images fill places that lack a group as the plan says: the number is public, and follows from no data."""
    if package.site not in plan.sites:
        raise VerificationError(f"provenance/{package.site}: the plan knows no such site")
    found = Counter((image.method, image.model) for image in package.images if is_fill(image.method))
    items = plan.part_at(package.site, plan.choices[0], package.part)
    if found != Counter({(item.method, item.model): item.images for item in items if is_fill(item.method)}):
        raise VerificationError(
            f"provenance/{package.site}: not as many places are filled from the model as the plan says"
        )


def _same(image: ImageEntry, entry: ManifestImage) -> bool:
    return image.model_dump(exclude={"site"}) == entry.model_dump(exclude={"sha256"})
