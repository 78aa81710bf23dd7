"""Who belongs to the federation: `sites.json`, one record a site.

The file is read anew at each question, so that a revocation holds at once.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric import ec

from sfumato_common.crypto import certificates
from sfumato_common.crypto.certificates import certificate_fingerprint, expiry_note, has_ended
from sfumato_common.crypto.enrolment import EnrolmentGrant, EnrolmentRequest, read_request
from sfumato_common.crypto.signatures import is_fingerprint
from sfumato_common.errors import ConfigError, FederationError, VerificationError
from sfumato_common.files import make_private_folder, write_json
from sfumato_server.enrol.authority import load_authority, unlock_authority
from sfumato_server.enrol.copies import require_only

FILE = "sites.json"
FORMAT = "sfumato-sites/1"


@dataclass(frozen=True)
class SiteRecord:
    """One site: signing key (PEM), node key (OpenSSH line), client certificate (PEM), and whether it may enter.

    `earlier` are certificates that were renewed before they ended: the site may not have got the new one yet.
    `holder` is the hospital whose pseudonym `site` is, by its own name and key (PEM), '' where the name is its own: for
    the coordinator's people alone.
    """

    site: str
    signing_key: str
    node_key: str
    certificate: str
    status: Literal["enrolled", "revoked"]
    earlier: tuple[str, ...] = ()
    holder: str = ""
    holder_key: str = ""


class Registry:
    """The sites that a coordinator's home knows."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def sites(self) -> dict[str, SiteRecord]:
        """All records by site name, revoked ones too. Raises ConfigError when the file is damaged."""
        try:
            value = json.loads((self.home / FILE).read_text(encoding="utf-8"))
            if value["format"] != FORMAT:
                raise ValueError("another format")
            return {name: _record(name, fields) for name, fields in value["sites"].items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError, AttributeError):
            raise ConfigError(f"{FILE} is damaged; restore it from the backup") from None

    def record_in_force(self, site: str) -> SiteRecord:
        """The record of a site in good standing. Raises FederationError when it is unknown or revoked."""
        record = self.sites().get(site)
        if record is None:
            raise FederationError(f"site '{site}' is not enrolled; enrol it first")
        if record.status != "enrolled":
            raise FederationError(f"site '{site}' was revoked")
        return record

    def in_force(self) -> set[str]:
        """Names of the sites in good standing."""
        return {site for site, record in self.sites().items() if record.status == "enrolled"}

    def by_certificate(self, certificate: bytes) -> SiteRecord:
        """The site in good standing that this very certificate (PEM) was issued to. Raises FederationError."""
        try:
            wanted = certificate_fingerprint(certificate)
        except VerificationError:
            raise FederationError("the caller's certificate cannot be read") from None
        for record in self.sites().values():
            if wanted in {certificate_fingerprint(own.encode()) for own in (record.certificate, *record.earlier)}:
                return self.record_in_force(record.site)
        raise FederationError("the caller's certificate belongs to no enrolled site")

    def revoke(self, site: str) -> None:
        """Shut a site out for good. Raises ConfigError when it is unknown."""
        with self._change() as sites:
            if site not in sites:
                raise ConfigError(f"site '{site}' is not enrolled; nothing to revoke")
            sites[site] = replace(sites[site], status="revoked")

    def add(self, record: SiteRecord) -> None:
        """Store a new record. Raises VerificationError when the name or one of the keys is taken."""
        with self._change() as sites:
            if record.site in sites:
                raise VerificationError(f"site '{record.site}' is already taken; choose another name")
            for other in sites.values():
                if record.signing_key == other.signing_key or record.node_key == other.node_key:
                    raise VerificationError("another site uses one of these keys; make a new identity")
            sites[record.site] = record

    def renew(self, site: str, certificate: bytes, *, keep_earlier: bool = True) -> None:
        """Give a site in good standing another certificate (PEM). Raises FederationError.

        With `keep_earlier` those that it had are good until they end; without, at once no more.
        """
        with self._change() as sites:
            record = self.record_in_force(site)
            known = (record.certificate, *record.earlier) if keep_earlier else ()
            earlier = tuple(pem for pem in known if not has_ended(pem.encode()))
            sites[site] = replace(record, certificate=certificate.decode(), earlier=earlier)

    @contextmanager
    def _change(self) -> Iterator[dict[str, SiteRecord]]:
        """The records for a change that is written when the block ends well; one writer at a time."""
        make_private_folder(self.home)
        with (self.home / f".{FILE}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            sites = self.sites()
            yield sites
            write_json(
                self.home / FILE,
                {"format": FORMAT, "sites": {name: _fields(record) for name, record in sites.items()}},
            )


def require_planned(site: str, sites: Collection[str]) -> None:
    """Raise FederationError, with the nearest name that there is, for a site that is none of the plan's `sites`."""
    if site not in sites:
        near = get_close_matches(site, sites, n=1)
        meant = f"'{near[0]}' is one" if near else f"there are {', '.join(sorted(sites))}"
        raise FederationError(f"the study's plan names no site '{site}' ({meant}); nothing was signed")


def enrol(
    home: Path, request: bytes, fingerprint: str, sites: Collection[str], *, passphrase: bytes | None = None
) -> EnrolmentGrant:
    """Verify an enrolment request, sign the site's certificate and register it; the same request again is harmless.

    `fingerprint` is what the site's people told of its key, `sites` are the names in the plan. `passphrase` opens the
    CA's key, see `unlock_authority`; for a site with a certificate that does not end soon none is needed.

    Raises VerificationError for a bad signature or malformed request, another fingerprint, and a name or key that is
    taken; FederationError for a site that the plan does not name or that was revoked.
    """
    authority, registry = load_authority(home), Registry(home)
    wanted = read_request(request)
    require_planned(wanted.site, sites)
    if not is_fingerprint(fingerprint, wanted.signing_key.encode()):
        raise VerificationError(
            f"the key in this request has another fingerprint than site '{wanted.site}' told; somebody may have made "
            "the request in the site's place: ask the site for it again"
        )
    _check_held_once(registry, wanted, sites)
    known = registry.sites().get(wanted.site)
    if known is None:
        pem = certificates.issue_site_certificate(
            unlock_authority(home, passphrase), wanted.certificate_request.encode(), wanted.site
        )
        held = (wanted.holder.site, wanted.holder.site_key) if wanted.holder else ("", "")
        known = SiteRecord(wanted.site, wanted.signing_key, wanted.node_key, pem.decode(), "enrolled", (), *held)
        registry.add(known)
    else:
        _check_same(known, wanted)
        registry.record_in_force(wanted.site)
        if expiry_note(known.certificate.encode(), wanted.site) is not None:
            return renew(home, wanted.site, passphrase=passphrase)
    return EnrolmentGrant(known.certificate.encode(), authority.ca_pem, authority.public_key)


def renew(home: Path, site: str, *, keep_earlier: bool = True, passphrase: bytes | None = None) -> EnrolmentGrant:
    """A new certificate over the same keys of a site in good standing, whether the old one has ended or not.

    Plan, packages and whatever else is known of the site stay as they are; `keep_earlier` as for `Registry.renew`,
    `passphrase` as for `enrol`. Raises FederationError.
    """
    authority, registry = load_authority(home), Registry(home)
    held = certificates.load_certificate(registry.record_in_force(site).certificate.encode()).public_key()
    assert isinstance(held, ec.EllipticCurvePublicKey), "enrolment certifies no other key"
    pem = certificates.certify_site(unlock_authority(home, passphrase), held, site)
    registry.renew(site, pem, keep_earlier=keep_earlier)
    return EnrolmentGrant(pem, authority.ca_pem, authority.public_key)


def revoke(home: Path, site: str) -> None:
    """Shut a site out for good, from the next question that anybody asks the registry.

    Its certificate opens no port, its node is asked nothing, what it answers is dropped, its packages are not pooled.
    """
    require_only(home)
    Registry(home).revoke(site)


def _check_same(known: SiteRecord, wanted: EnrolmentRequest) -> None:
    """A name belongs to the keys that took it. Raises VerificationError."""
    tls = certificates.request_key(wanted.certificate_request.encode(), wanted.site)
    held = certificates.load_certificate(known.certificate.encode()).public_key()
    if (known.signing_key, known.node_key) != (wanted.signing_key, wanted.node_key) or held != tls:
        raise VerificationError(f"site name '{wanted.site}' is taken by other keys; choose another name")


def _check_held_once(registry: Registry, wanted: EnrolmentRequest, sites: Collection[str]) -> None:
    """A hospital is one site of a plan, under whatever name. Raises VerificationError."""
    own = wanted.holder.site_key if wanted.holder else wanted.signing_key
    for other in registry.sites().values():
        if other.site in sites and other.site != wanted.site and (other.holder_key or other.signing_key) == own:
            raise VerificationError(
                f"the hospital behind site '{wanted.site}' is in the plan as '{other.site}' already: its patients "
                "would pay twice; take one of the two names out of the plan"
            )
    if wanted.holder and wanted.holder.site in sites:
        raise VerificationError(
            f"the plan names '{wanted.holder.site}', whose pseudonym '{wanted.site}' is: take one of the two out of it"
        )


def _fields(record: SiteRecord) -> dict[str, Any]:
    """A record as it is kept; without whose name it is where that is its own, as older versions wrote it."""
    return {key: value for key, value in asdict(record).items() if key != "site" and (value or "holder" not in key)}


def _record(name: str, fields: dict[str, Any]) -> SiteRecord:
    record = SiteRecord(site=name, **{**fields, "earlier": tuple(fields.get("earlier", ()))})
    if record.status not in ("enrolled", "revoked"):
        raise ValueError("unknown status")
    return record
