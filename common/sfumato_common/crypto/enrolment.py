"""The two documents of enrolment: a site's signed request, and the coordinator's grant. Canonical JSON, no secrets."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sfumato_common.crypto import certificates, signatures
from sfumato_common.crypto.identity import SITE_NAME, SiteIdentity
from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.files import canonical_json, write_atomic

FORMAT = "sfumato-enrolment/1"
GRANT_FORMAT = "sfumato-grant/1"
GRANT_FILES = {"certificate": "site.crt", "authority": "ca.crt", "coordinator_key": "coordinator.pem"}
LARGEST_BYTES = 64 * 1024


@dataclass(frozen=True)
class EnrolmentRequest:
    """A verified request: the site's name and its three public keys (certificate request, PEM, OpenSSH)."""

    site: str
    certificate_request: str
    signing_key: str
    node_key: str


@dataclass(frozen=True)
class EnrolmentGrant:
    """What a site gets: its client certificate, the CA's, and the coordinator's public signing key (all PEM)."""

    certificate: bytes
    authority: bytes
    coordinator_key: bytes


def enrolment_request(identity: SiteIdentity) -> bytes:
    """The request a site sends (or carries) to the coordinator: canonical JSON, signed with its signing key."""
    body = {
        "format": FORMAT,
        "site": identity.site,
        "certificate_request": certificates.signing_request(identity.tls_key, identity.site).decode("ascii"),
        "signing_key": identity.signing_public.decode("ascii"),
        "node_key": identity.node_public.decode("ascii"),
    }
    signature = signatures.sign(identity.signing_key, "enrolment", canonical_json(body))
    return canonical_json({"body": body, "signature": signature.hex()})


def read_request(data: bytes) -> EnrolmentRequest:
    """Verify a request down to its keys. Raises VerificationError when anything in it does not hold."""
    outer = _object(data, {"body", "signature"})
    body = outer["body"]
    fields = {"format", "site", "certificate_request", "signing_key", "node_key"}
    if not isinstance(body, dict) or set(body) != fields or not all(isinstance(item, str) for item in body.values()):
        raise VerificationError("the enrolment request is malformed; make a new one")
    if body["format"] != FORMAT:
        raise VerificationError("the enrolment request has another format; use the same version on both sides")
    if not SITE_NAME.fullmatch(body["site"]):
        raise VerificationError("the enrolment request holds no valid site name")
    try:
        signature = bytes.fromhex(str(outer["signature"]))
        canonical, signing_key = canonical_json(body), body["signing_key"].encode("ascii")
        request, node_key = body["certificate_request"].encode("ascii"), body["node_key"].encode("ascii")
    except (ValueError, UnicodeEncodeError):
        raise VerificationError("the enrolment request is malformed; make a new one") from None
    signatures.verify(signing_key, "enrolment", canonical, signature)
    certificates.request_key(request, body["site"])
    _check_node_key(node_key)
    return EnrolmentRequest(body["site"], body["certificate_request"], body["signing_key"], body["node_key"])


def encode_grant(grant: EnrolmentGrant) -> bytes:
    """The grant as canonical JSON, to be carried to the site."""
    return canonical_json(
        {"format": GRANT_FORMAT, **{key: value.decode("ascii") for key, value in asdict(grant).items()}}
    )


def store_grant(identity: SiteIdentity, data: bytes) -> EnrolmentGrant:
    """Check a grant against the site's own keys and keep it in its folder. Raises VerificationError."""
    value = _object(data, {"format", *GRANT_FILES})
    if value["format"] != GRANT_FORMAT or not all(isinstance(item, str) for item in value.values()):
        raise VerificationError("the enrolment grant has another format; use the same version on both sides")
    grant = EnrolmentGrant(**{key: value[key].encode("ascii", "replace") for key in GRANT_FILES})
    certificates.check_site_certificate(
        grant.certificate, grant.authority, identity.site, identity.tls_key.public_key()
    )
    signatures.load_public_key(grant.coordinator_key)
    for key, name in GRANT_FILES.items():
        write_atomic(identity.folder / name, getattr(grant, key))
    return grant


def load_grant(folder: Path) -> EnrolmentGrant:
    """The grant kept in a site's folder. Raises ConfigError when the site is not enrolled yet."""
    try:
        return EnrolmentGrant(**{key: (folder / name).read_bytes() for key, name in GRANT_FILES.items()})
    except OSError:
        raise ConfigError(f"{folder.name}: this site is not enrolled yet; send its enrolment request first") from None


def _object(data: bytes, fields: set[str]) -> dict[str, Any]:
    if len(data) > LARGEST_BYTES:
        raise VerificationError("the enrolment document is too large; ask the sender again")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise VerificationError("the enrolment document is not JSON; ask the sender again") from None
    if not isinstance(value, dict) or set(value) != fields:
        raise VerificationError("the enrolment document has missing or unknown fields; ask the sender again")
    return value


def _check_node_key(line: bytes) -> None:
    try:
        key = serialization.load_ssh_public_key(line)
    except Exception:
        raise VerificationError("the node key is not in OpenSSH form; make a new enrolment request") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise VerificationError("the node key is not a P-384 key; make a new enrolment request")
