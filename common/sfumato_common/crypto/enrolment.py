"""The two documents of enrolment: a site's request, and the coordinator's grant. Canonical JSON, signed, no secrets.

Each names the key that signs it, so a signature alone says nothing of who sent it: people compare that key's
fingerprint by another way than the document came. Everything else in the document hangs on that one key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sfumato_common.crypto import certificates, signatures
from sfumato_common.crypto.certificates import load_certificate
from sfumato_common.crypto.identity import SITE_NAME, SiteIdentity
from sfumato_common.crypto.pseudonyms import Binding, read_binding
from sfumato_common.errors import ConfigError, FederationError, VerificationError
from sfumato_common.files import canonical_json, write_atomic

FORMAT = "sfumato-enrolment/2"
HELD_FORMAT = "sfumato-enrolment/3"  # of a pseudonym, with the statement of whose it is
GRANT_FORMAT = "sfumato-grant/2"
GRANT_FILES = {"certificate": "site.crt", "authority": "ca.crt", "coordinator_key": "coordinator.pem"}
LARGEST_BYTES = 64 * 1024
_KEYS = {"certificate_request", "signing_key", "node_key"}


@dataclass(frozen=True)
class EnrolmentRequest:
    """A verified request: the site's name and its three public keys (certificate request, PEM, OpenSSH).

    `holder` says whose name it is, where it is a pseudonym.
    """

    site: str
    certificate_request: str
    signing_key: str
    node_key: str
    holder: Binding | None = None


@dataclass(frozen=True)
class EnrolmentGrant:
    """What a site gets: its client certificate, the CA's, and the coordinator's public signing key (all PEM)."""

    certificate: bytes
    authority: bytes
    coordinator_key: bytes


def enrolment_request(identity: SiteIdentity, holder: bytes | None = None) -> bytes:
    """The request a site sends (or carries) to the coordinator: canonical JSON, signed by each key that it names.

    `holder` is the statement of `pseudonyms.bind_names` where `identity` is a pseudonym's: for the coordinator alone.
    """
    held = {} if holder is None else {"holder": holder.decode("ascii")}
    body = {
        "format": FORMAT if holder is None else HELD_FORMAT,
        **held,
        "site": identity.site,
        "certificate_request": certificates.signing_request(identity.tls_key, identity.site).decode("ascii"),
        "signing_key": identity.signing_public.decode("ascii"),
        "node_key": identity.node_public.decode("ascii"),
    }
    signed = canonical_json(body)
    proofs = {
        "certificate_request": signatures.sign_elliptic(identity.tls_key, "enrolment", signed),
        "signing_key": signatures.sign(identity.signing_key, "enrolment", signed),
        "node_key": signatures.sign_elliptic(identity.node_key, "enrolment", signed),
    }
    return canonical_json({"body": body, "signatures": {name: proof.hex() for name, proof in proofs.items()}})


def read_request(data: bytes) -> EnrolmentRequest:
    """Verify a request down to its keys: whoever made it holds every key that it names. Raises VerificationError."""
    outer = _object(data, {"body", "signatures"})
    held = {"holder"} if isinstance(outer["body"], dict) and "holder" in outer["body"] else set[str]()
    body, proofs = _texts(outer["body"], {"format", "site", *held, *_KEYS}), _texts(outer["signatures"], _KEYS)
    if body["format"] != (HELD_FORMAT if held else FORMAT):
        raise VerificationError("the enrolment request has another format; use the same version on both sides")
    if not SITE_NAME.fullmatch(body["site"]):
        raise VerificationError("the enrolment request holds no valid site name")
    try:
        given = {name: bytes.fromhex(proofs[name]) for name in _KEYS}
        signed, keys = canonical_json(body), {name: body[name].encode("ascii") for name in _KEYS}
    except (ValueError, UnicodeEncodeError):
        raise VerificationError("the enrolment request is malformed; make a new one") from None
    tls_key = certificates.request_key(keys["certificate_request"], body["site"])
    signatures.verify(keys["signing_key"], "enrolment", signed, given["signing_key"])
    signatures.verify_elliptic(tls_key, "enrolment", signed, given["certificate_request"])
    signatures.verify_elliptic(_node_key(keys["node_key"]), "enrolment", signed, given["node_key"])
    keys_of = (body["certificate_request"], body["signing_key"], body["node_key"])
    return EnrolmentRequest(body["site"], *keys_of, _holder(body) if held else None)


def _holder(body: Mapping[str, str]) -> Binding:
    """Whose pseudonym a request names. Raises VerificationError where the statement is about another one."""
    holder = read_binding(body["holder"])
    if (holder.name, holder.name_key) != (body["site"], body["signing_key"]):
        raise VerificationError("the enrolment request says whose name another one is; make a new one")
    return holder


def encode_grant(grant: EnrolmentGrant, signing_key: Ed25519PrivateKey) -> bytes:
    """The grant as canonical JSON, signed by the coordinator's key, to be carried to the site."""
    body = {"format": GRANT_FORMAT, **{key: value.decode("ascii") for key, value in asdict(grant).items()}}
    signature = signatures.sign(signing_key, "grant", canonical_json(body))
    return canonical_json({"body": body, "signature": signature.hex()})


def store_grant(
    identity: SiteIdentity, data: bytes, fingerprint: str, *, replace: bool = False, folder: Path | None = None
) -> EnrolmentGrant:
    """Keep a grant whose coordinator's key has the fingerprint that the coordinator's people told, in `folder`.

    Without `folder` beside the site's own keys: that is for the first coordinator, and each more has one of its own.
    Raises VerificationError when it is another coordinator's or does not fit the site's own keys, and, but for
    `replace`, when the site is enrolled already under another coordinator's key or another CA.
    """
    grant = _read_grant(data)
    if not signatures.is_fingerprint(fingerprint, grant.coordinator_key):
        raise VerificationError(
            "the coordinator's key in this grant has another fingerprint than was told; somebody may have made the "
            "grant in the coordinator's place: ask the coordinator for it again"
        )
    return _keep_grant(identity, grant, folder or identity.folder, replace=replace)


def renew_grant(
    identity: SiteIdentity, data: bytes, *, replace: bool = False, folder: Path | None = None
) -> EnrolmentGrant:
    """Keep a new certificate of the coordinator whose key this site compared when it was enrolled.

    Nobody has to compare again: the key is kept, and signs the grant. Raises VerificationError as `store_grant`, and
    ConfigError when the site is not enrolled.
    """
    grant = _read_grant(data)
    folder = folder or identity.folder
    if not signatures.is_same_key(load_grant(folder).coordinator_key, grant.coordinator_key):
        raise VerificationError("this grant is not of the coordinator that this site is enrolled with; do not use it")
    return _keep_grant(identity, grant, folder, replace=replace)


def require_current(folder: Path) -> str | None:
    """What people are to be told of a site's certificates when they end soon. Raises FederationError when one has."""
    grant = load_grant(folder)
    notes = [
        note
        for pem, whose in ((grant.certificate, "this site"), (grant.authority, "the federation's CA"))
        if (note := certificates.expiry_note(pem, whose)) is not None
    ]
    if not notes:
        return None
    said = f"{', and '.join(notes)}; ask the coordinator to renew it, then run 'sfumato-site renew'"
    if certificates.has_ended(grant.certificate) or certificates.has_ended(grant.authority):
        raise FederationError(said)
    return said


def _keep_grant(identity: SiteIdentity, grant: EnrolmentGrant, folder: Path, *, replace: bool) -> EnrolmentGrant:
    certificates.check_site_certificate(
        grant.certificate, grant.authority, identity.site, identity.tls_key.public_key()
    )
    if (folder / GRANT_FILES["coordinator_key"]).exists():
        _check_successor(load_grant(folder), grant, replace=replace)
    for key, name in GRANT_FILES.items():
        write_atomic(folder / name, getattr(grant, key))
    return grant


def _check_successor(known: EnrolmentGrant, grant: EnrolmentGrant, *, replace: bool) -> None:
    """Neither another coordinator or CA nor an older certificate takes the place of what is kept, unless asked to."""
    if replace:
        return
    same_key = signatures.is_same_key(known.coordinator_key, grant.coordinator_key)
    older, newer = (load_certificate(item.certificate).not_valid_after_utc for item in (grant, known))
    if same_key and older < newer:
        raise VerificationError("this grant is older than the one that is kept; ask the coordinator for the newest")
    if not same_key or load_certificate(known.authority) != load_certificate(grant.authority):
        raise VerificationError(
            f"this site is enrolled under another {'CA' if same_key else 'coordinator'}; ask the coordinator why, and "
            "pass --replace if the new one is to take its place"
        )


def _read_grant(data: bytes) -> EnrolmentGrant:
    """The grant in `data`, signed by the key that it names. Raises VerificationError."""
    outer = _object(data, {"body", "signature"})
    body = _texts(outer["body"], {"format", *GRANT_FILES})
    if body["format"] != GRANT_FORMAT:
        raise VerificationError("the enrolment grant has another format; use the same version on both sides")
    try:
        grant = EnrolmentGrant(**{key: body[key].encode("ascii") for key in GRANT_FILES})
        signed, signature = canonical_json(body), bytes.fromhex(str(outer["signature"]))
    except ValueError:
        raise VerificationError("the enrolment grant is malformed; ask for a new one") from None
    signatures.verify(grant.coordinator_key, "grant", signed, signature)
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
        raise VerificationError(
            "the enrolment document is not JSON: 'enrol' takes a site's enrolment-request.json, 'join' and 'renew' the "
            "grant; check which file it is, or ask the sender again"
        ) from None
    if not isinstance(value, dict) or set(value) != fields:
        raise VerificationError("the enrolment document has missing or unknown fields; ask the sender again")
    return value


def _texts(value: Any, fields: set[str]) -> dict[str, str]:
    if not isinstance(value, dict) or set(value) != fields or not all(isinstance(item, str) for item in value.values()):
        raise VerificationError("the enrolment document is malformed; ask the sender for a new one")
    return value


def _node_key(line: bytes) -> ec.EllipticCurvePublicKey:
    try:
        key = serialization.load_ssh_public_key(line)
    except Exception:
        raise VerificationError("the node key is not in OpenSSH form; make a new enrolment request") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise VerificationError("the node key is not a P-384 key; make a new enrolment request")
    return key
