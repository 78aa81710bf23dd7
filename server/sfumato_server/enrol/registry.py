"""Who belongs to the federation: `sites.json`, one record a site.

The file is read anew at each question, so that a revocation holds at once.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sfumato_common.crypto import certificates
from sfumato_common.crypto.certificates import certificate_fingerprint
from sfumato_common.crypto.enrolment import EnrolmentGrant, EnrolmentRequest, read_request
from sfumato_common.errors import ConfigError, FederationError, VerificationError
from sfumato_common.files import write_json
from sfumato_server.enrol.authority import load_authority, unlock_authority

FILE = "sites.json"
FORMAT = "sfumato-sites/1"


@dataclass(frozen=True)
class SiteRecord:
    """One site: signing key (PEM), node key (OpenSSH line), client certificate (PEM), and whether it may enter."""

    site: str
    signing_key: str
    node_key: str
    certificate: str
    status: Literal["enrolled", "revoked"]


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

    def by_certificate(self, certificate: bytes) -> SiteRecord:
        """The site in good standing that this very certificate (PEM) was issued to. Raises FederationError."""
        try:
            wanted = certificate_fingerprint(certificate)
        except VerificationError:
            raise FederationError("the caller's certificate cannot be read") from None
        for record in self.sites().values():
            if certificate_fingerprint(record.certificate.encode()) == wanted:
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

    @contextmanager
    def _change(self) -> Iterator[dict[str, SiteRecord]]:
        """The records for a change that is written when the block ends well; one writer at a time."""
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / f".{FILE}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            sites = self.sites()
            yield sites
            write_json(
                self.home / FILE,
                {"format": FORMAT, "sites": {name: _fields(record) for name, record in sites.items()}},
            )


def enrol(home: Path, request: bytes, *, passphrase: bytes | None = None) -> EnrolmentGrant:
    """Verify an enrolment request, sign the site's certificate and register it; the same request again is harmless.

    `passphrase` opens the CA's key, see `unlock_authority`; for a site that is enrolled already none is needed.

    Raises VerificationError for a bad signature or malformed request, for a name or key that is taken, and
    FederationError for a site that was revoked.
    """
    authority, registry = load_authority(home), Registry(home)
    wanted = read_request(request)
    known = registry.sites().get(wanted.site)
    if known is None:
        pem = certificates.issue_site_certificate(
            unlock_authority(home, passphrase), wanted.certificate_request.encode(), wanted.site
        )
        known = SiteRecord(wanted.site, wanted.signing_key, wanted.node_key, pem.decode(), "enrolled")
        registry.add(known)
    else:
        _check_same(known, wanted)
        registry.record_in_force(wanted.site)
    return EnrolmentGrant(known.certificate.encode(), authority.ca_pem, authority.public_key)


def revoke(home: Path, site: str) -> None:
    """Shut a site out for good: its certificate no longer opens the intake, its packages are not pooled."""
    Registry(home).revoke(site)


def _check_same(known: SiteRecord, wanted: EnrolmentRequest) -> None:
    """A name belongs to the keys that took it. Raises VerificationError."""
    tls = certificates.request_key(wanted.certificate_request.encode(), wanted.site)
    held = certificates.load_certificate(known.certificate.encode()).public_key()
    if (known.signing_key, known.node_key) != (wanted.signing_key, wanted.node_key) or held != tls:
        raise VerificationError(f"site name '{wanted.site}' is taken by other keys; choose another name")


def _fields(record: SiteRecord) -> dict[str, Any]:
    return {key: value for key, value in asdict(record).items() if key != "site"}


def _record(name: str, fields: dict[str, Any]) -> SiteRecord:
    record = SiteRecord(site=name, **fields)
    if record.status not in ("enrolled", "revoked"):
        raise ValueError("unknown status")
    return record
