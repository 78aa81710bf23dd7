"""Ed25519 signatures (RFC 8032) with a domain prefix, so that a signature made for one purpose never serves another.

The keys of Flower's node and of TLS are elliptic-curve keys: they sign an enrolment request by ECDSA (FIPS 186-5), too.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sfumato_common.errors import ConfigError, VerificationError

Domain = Literal[
    "enrolment", "grant", "package", "published", "root", "table", "approval", "secure-sum", "status", "run",
    "decision", "stewardship", "name",
]  # fmt: skip


def frame(domain: Domain, message: bytes) -> bytes:
    """What is really signed: the purpose, a zero byte (which no domain holds), the message."""
    return b"sfumato/v1/" + domain.encode("ascii") + b"\x00" + message


def sign(key: Ed25519PrivateKey, domain: Domain, message: bytes) -> bytes:
    """The 64-byte signature of `message` for `domain`; deterministic."""
    return key.sign(frame(domain, message))


def verify(public_key: bytes, domain: Domain, message: bytes, signature: bytes) -> None:
    """Check `signature` against a PEM public key. Raises VerificationError when it does not hold."""
    try:
        load_public_key(public_key).verify(signature, frame(domain, message))
    except InvalidSignature:
        raise VerificationError(f"the {domain} signature does not hold; do not trust these bytes") from None


def sign_elliptic(key: ec.EllipticCurvePrivateKey, domain: Domain, message: bytes) -> bytes:
    """The ECDSA signature of `message` for `domain`, DER."""
    return key.sign(frame(domain, message), ec.ECDSA(hashes.SHA384()))


def verify_elliptic(key: ec.EllipticCurvePublicKey, domain: Domain, message: bytes, signature: bytes) -> None:
    """Check an ECDSA signature. Raises VerificationError when it does not hold."""
    try:
        key.verify(signature, frame(domain, message), ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise VerificationError(f"the {domain} signature does not hold; do not trust these bytes") from None


def load_public_key(pem: bytes) -> Ed25519PublicKey:
    """The Ed25519 public key in `pem`. Raises VerificationError for anything else."""
    try:
        key = serialization.load_pem_public_key(pem)
    except Exception:
        # cryptography raises ValueError, UnsupportedAlgorithm or TypeError here, according to how the bytes are broken
        raise VerificationError("not a public key in PEM form; ask the sender again") from None
    if not isinstance(key, Ed25519PublicKey):
        raise VerificationError("the public key is not an Ed25519 key; ask the sender again")
    return key


def load_private_key(pem: bytes) -> Ed25519PrivateKey:
    """The unencrypted Ed25519 private key in `pem`. Raises ConfigError for anything else."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except Exception:
        raise ConfigError("the signing key file is damaged; restore it from the backup") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError("the signing key is not an Ed25519 key; restore it from the backup")
    return key


def private_pem(key: Ed25519PrivateKey) -> bytes:
    """Unencrypted PKCS #8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(key: Ed25519PublicKey) -> bytes:
    """SubjectPublicKeyInfo PEM."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def raw_of(public_key: bytes) -> bytes:
    """The 32 bytes of a public key in PEM form. Raises VerificationError for anything else."""
    return _raw(public_key)


def pem_of(raw: bytes) -> bytes:
    """PEM of a public key's 32 bytes. Raises VerificationError for another number of them."""
    try:
        return public_pem(Ed25519PublicKey.from_public_bytes(raw))
    except ValueError:
        raise VerificationError("not the bytes of an Ed25519 key; ask the sender again") from None


def fingerprint(public_key: bytes) -> str:
    """What two people compare over the telephone: the first 100 bits of the sha256 of the 32 raw key bytes.

    Base32 (RFC 4648) in five groups of four: whoever wants another key with the same one has 2^100 keys to try.
    """
    letters = base64.b32encode(hashlib.sha256(_raw(public_key)).digest()).decode("ascii").lower()
    return "-".join(letters[at : at + 4] for at in range(0, 20, 4))


def is_fingerprint(said: str, public_key: bytes) -> bool:
    """Whether what a person typed is that key's fingerprint; case, spaces and dashes do not matter, any letter does."""
    return re.sub(r"[\s-]", "", said).lower() == fingerprint(public_key).replace("-", "")


def is_same_key(one: bytes, other: bytes) -> bool:
    """Whether two public keys (PEM) are the same key. Raises VerificationError where one of them is none."""
    return _raw(one) == _raw(other)


def _raw(public_key: bytes) -> bytes:
    return load_public_key(public_key).public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
