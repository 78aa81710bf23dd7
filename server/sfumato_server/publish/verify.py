"""Offline check of a published data set: every byte back to the coordinator's signature, every image to its site's."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from sfumato_common.count_text import count_text
from sfumato_common.crypto.signatures import Domain, fingerprint, is_same_key, verify
from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.files import file_sha256
from sfumato_common.package.features import FILE
from sfumato_common.strict import parse
from sfumato_common.study.costs import WITHOUT_PRIVACY
from sfumato_common.study.lineage import plan_of_site, require_whole
from sfumato_common.study.plan import Plan
from sfumato_common.study.words import PARTS, Part, is_fill
from sfumato_server.publish.cards import CARDS
from sfumato_server.publish.features import check_features, has_features
from sfumato_server.publish.layout import NEAR, ShardFiles, key_file
from sfumato_server.publish.left_out import check_left_out
from sfumato_server.publish.manifest import (
    COORDINATOR_KEY,
    FORM,
    MANIFEST,
    ROOT,
    ROOT_SIGNATURE,
    SIGNATURE,
    PublishedManifest,
    parse_published,
    stated_files,
)
from sfumato_server.publish.shard import CheckedShard, cover_in, gone, key_in, read_file
from sfumato_server.publish.shard_checks import check_shards
from sfumato_server.publish.strays import refuse_extra, strays_in, walk_tree
from sfumato_server.publish.tables import table_headers
from sfumato_server.workers import ALONE, Where

UNVERIFIED = "UNVERIFIED ORIGIN"


@dataclass(frozen=True)
class VerificationReport:
    """What was found to hold. `trusted`: the coordinator's key was compared with one that the caller brought.

    `site_fingerprints` are of the keys that sites signed with, `compared_sites` those whose key the caller brought too.
    `private` is what the plan says: where it is not, the weights behind the images left without differential privacy.
    `strays` lie in the folder, are no part of the set and were not looked at: what systems and portals write.
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
    strays: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line for the screen."""
        key = f"the coordinator's key {self.coordinator_fingerprint}"
        untrusted = f"{UNVERIFIED}: {key} was NOT compared with a trusted one"
        trust = f"{key} is the trusted one" if self.trusted else untrusted
        what = f"study '{self.study}': {count_text(self.images, 'image')} of {', '.join(self.sites)}"
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
    *,
    workers: int = 1,
    progress: Callable[[int], None] = lambda images: None,
    where: Where | None = None,
) -> VerificationReport:
    """Verify the data set in `folder` against public keys (PEM) that the caller trusts: coordinator's, sites'.

    Without the coordinator's, the key inside is used, and all that is shown is that the set agrees with itself: anybody
    can make such a set. Without a site's, the coordinator may have invented the site. Shards are checked one by one, or
    by so many `workers`, or as `where` says; `progress` is told how many images have been since it was told last. A set
    that `sfumato dataset convert` wrote is verified too, back to the same signatures.

    Raises VerificationError naming the file at the first thing that does not hold: an altered byte, a missing or linked
    file, an image that its site did not sign; after all of those, files in excess, but for strays. Raises ConfigError
    when `folder` holds no published set, or nothing of a site whose key the caller brought.
    """
    if (folder / FORM).is_file():
        from sfumato_server.publish.converted import verify_converted

        return verify_converted(folder, trusted_coordinator_key, trusted_site_keys, progress)
    return _verified(folder, trusted_coordinator_key, trusted_site_keys, where or Where(workers), progress)


def verify_statements(
    folder: Path,
    trusted_coordinator_key: bytes | None = None,
    trusted_site_keys: Mapping[str, bytes] = MappingProxyType({}),
) -> VerificationReport:
    """Verify all of a set but its pictures, which need not be there: what is signed, by whom, and of which images.

    Whoever goes on to use a picture compares its pixels with the entry's `pixel_sha256`. Raises as `verify_dataset`,
    but for files that are there in excess.
    """
    return _verified(folder, trusted_coordinator_key, trusted_site_keys, ALONE, lambda images: None, pictures=False)


def _verified(
    folder: Path,
    trusted_coordinator_key: bytes | None,
    trusted_site_keys: Mapping[str, bytes],
    where: Where,
    progress: Callable[[int], None],
    *,
    pictures: bool = True,
) -> VerificationReport:
    manifest, key = read_signed(folder, trusted_coordinator_key)
    plan = checked_plan(manifest)
    _check_shards_listed(manifest)
    extra = _check_tree(folder, manifest, plan) if pictures else []
    for name, entry in sorted(manifest.files.items()):
        path = folder / name
        if not path.is_file():
            raise VerificationError(f"{name} is missing or cannot be read")
        if path.stat().st_size != entry.bytes or file_sha256(path) != entry.sha256:
            raise VerificationError(f"{name} was altered")
    keys = _site_keys(folder, manifest, trusted_site_keys)
    checked: list[CheckedShard] = []
    for shard in check_shards(folder, manifest, keys, plan, cover_in(folder, manifest), where, pictures):
        progress(manifest.shards[len(checked)].images)
        checked.append(shard)
    _check_together(manifest, plan, checked)
    check_left_out(folder, manifest, plan, pictures)
    _check_tables(folder, checked)
    if has_features(plan):
        check_features(plan, read_file(folder, FILE))
    refuse_extra(extra)
    return VerificationReport(
        study=manifest.study,
        plan_hash=manifest.plan_hash,
        images=manifest.images,
        sites=tuple(manifest.sites),
        coordinator_fingerprint=fingerprint(key),
        trusted=trusted_coordinator_key is not None,
        site_fingerprints={site: fingerprint(own) for site, own in sorted(keys.items())},
        compared_sites=tuple(sorted(trusted_site_keys)),
        private=plan.private,
        strays=strays_in(folder) if pictures else (),
    )


def read_signed(folder: Path, trusted_coordinator_key: bytes | None) -> tuple[PublishedManifest, bytes]:
    """The manifest, both of the coordinator's signatures checked, and the key (PEM) that made them.

    Raises as `verify_dataset`.
    """
    if not (folder / MANIFEST).is_file():
        raise ConfigError(f"'{folder.name}' is not a published data set: no {MANIFEST}; check the path")
    signed, key = read_file(folder, MANIFEST), key_in(folder)
    if trusted_coordinator_key is not None and not is_same_key(key, trusted_coordinator_key):
        raise VerificationError(f"{COORDINATOR_KEY} is not the trusted coordinator's key")
    _check_signature(folder, key, "published", signed, MANIFEST, SIGNATURE)
    manifest = parse_published(signed)
    root = read_file(folder, ROOT)
    if root != manifest.root.encode():
        raise VerificationError(f"{ROOT} does not say what {MANIFEST} says")
    _check_signature(folder, key, "root", root, ROOT, ROOT_SIGNATURE)
    return manifest, key


def _check_signature(folder: Path, key: bytes, domain: Domain, signed: bytes, name: str, signature: str) -> None:
    said = read_file(folder, signature)
    try:
        verify(key, domain, signed, said)
    except VerificationError:
        raise VerificationError(f"{signature} does not hold for {name} and {COORDINATOR_KEY}") from None


def checked_plan(manifest: PublishedManifest) -> Plan:
    """The plan in the manifest. Raises VerificationError unless it is the one that the manifest names."""
    try:
        plan = parse(manifest.plan, Plan, MANIFEST)
    except ConfigError:
        raise VerificationError(f"{MANIFEST} holds no valid plan") from None
    if plan.study_digest != manifest.plan_hash or plan.study != manifest.study:
        raise VerificationError(f"{MANIFEST} states another plan than its hash")
    try:
        require_whole(plan)
    except ConfigError as error:
        raise VerificationError(f"{MANIFEST}: {error}") from None
    return plan


def _check_shards_listed(manifest: PublishedManifest) -> None:
    """Every part that a site sent is there whole: each of its shards once, in order."""
    found: dict[tuple[str, Part], list[int]] = {}
    for line in manifest.shards:
        found.setdefault((line.site, line.part), []).append(line.shard)
    wanted = {(line.site, line.part): list(range(1, line.shards + 1)) for line in manifest.shards}
    parts = {(site, part) for site, own in manifest.packages.items() for part in own}
    in_order = sorted(found, key=lambda key: (key[0], PARTS.index(key[1])))
    if found != wanted or set(found) != parts or list(found) != in_order:
        raise VerificationError(f"{MANIFEST} does not list each shard of what sites sent once, in order")


def _check_tree(folder: Path, manifest: PublishedManifest, plan: Plan) -> list[str]:
    """What else the folder holds than the listed files and strays; what is in image folders is their shards' matter."""
    if set(manifest.files) != stated_files(manifest.sites, [FILE] if has_features(plan) else []) | set(CARDS):
        raise VerificationError(f"{MANIFEST} does not list the files that its shards and sites need")
    shards = [(ShardFiles(line.site, line.part, line.shard), line) for line in manifest.shards]
    signed = {MANIFEST, SIGNATURE, ROOT, ROOT_SIGNATURE}
    wanted = signed.union(manifest.files, *(files.all for files, _ in shards))
    leaves = {name for files, line in shards for name in files.folders(line.signed)}
    leaves |= {name for files, line in shards if line.near for name in files.folders(line.signed, NEAR)}
    folders = {parent.as_posix() for name in (*wanted, *leaves) for parent in Path(name).parents}
    found: set[str] = set()
    extra: list[str] = []
    for name, is_folder in walk_tree(folder, "", leaves):
        found.add(name)
        known = name in ((folders | leaves) if is_folder else wanted)
        if not known and not (extra and name.startswith(f"{extra[-1]}/")):
            extra.append(name)
    if missing := sorted(wanted - found):
        raise gone(missing)
    return extra


def _site_keys(folder: Path, manifest: PublishedManifest, trusted: Mapping[str, bytes]) -> dict[str, bytes]:
    """The one key of each site, PEM: the one in the folder, which is the caller's where one was given."""
    if absent := sorted(set(trusted) - set(manifest.packages)):
        raise ConfigError(f"a key of site '{absent[0]}' was given, but the set holds nothing of it; leave that out")
    keys = {site: read_file(folder, key_file(site)) for site in manifest.packages}
    for site, key in trusted.items():
        if not is_same_key(keys[site], key):
            name = key_file(site)
            raise VerificationError(f"{name}: the key that site '{site}' signed with is not the trusted key")
    return keys


def _check_together(manifest: PublishedManifest, plan: Plan, checked: Sequence[CheckedShard]) -> None:
    """What no shard shows alone: a site's parts are whole, no name comes twice, and places are filled as planned."""
    held: dict[tuple[str, Part], Counter[tuple[str, str]]] = {}
    last = ""
    for line, shard in zip(manifest.shards, checked, strict=True):
        if line.shard > 1 and shard.first <= last:
            raise VerificationError(f"site '{line.site}' signed two images under one name, or shards out of order")
        last = shard.last
        held.setdefault((line.site, line.part), Counter()).update(shard.held)
    for (site, part), found in held.items():
        own = plan_of_site(plan, site)
        items = own.part_at(site, own.choices[0], part)
        wanted = Counter({(item.method, item.model): item.images for item in items if is_fill(item.method)})
        if Counter({source: images for source, images in found.items() if is_fill(source[0])}) != wanted:
            raise VerificationError(f"provenance/{site}: not as many places are filled from the model as the plan says")


def _check_tables(folder: Path, checked: Sequence[CheckedShard]) -> None:
    """Each table is its header and the rows of every shard, one shard after another."""
    for name, header in table_headers().items():
        with (folder / name).open("rb") as stream:
            same = stream.read(len(header)) == header
            for size, sha256 in (shard.rows[name] for shard in checked):
                same = same and hashlib.sha256(stream.read(size)).hexdigest() == sha256
            if not same or stream.read(1):
                raise VerificationError(f"{name} does not say what {MANIFEST} and the sites say")
