"""Keys that two sites share, masks and seals: X25519 (RFC 7748), HKDF (RFC 5869), ChaCha20-Poly1305 (RFC 8439)."""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sfumato_common.errors import VerificationError
from sfumato_common.mechanisms.noise import KeyStream
from sfumato_common.mechanisms.summed import Words

TAG_BYTES = 16
# a key seals one text, so that its nonce may be zero
_NONCE = bytes(12)


def public_of(private: bytes) -> bytes:
    """The raw X25519 public key of a raw private key."""
    key = X25519PrivateKey.from_private_bytes(private).public_key()
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def shared_key(private: bytes, public: bytes, text: bytes) -> bytes:
    """32 bytes that the owners of the two keys alone know, for the purpose that `text` states.

    Raises VerificationError for a public key that gives everybody the same secret.
    """
    try:
        secret = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise VerificationError("an offered key is no key: whoever made it shares no secret with anybody") from None
    return derived_key(secret, text)


def derived_key(secret: bytes, text: bytes) -> bytes:
    """HKDF-SHA256 of a secret for the purpose that `text` states: 32 bytes."""
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=text).derive(secret)


def mask_words(key: bytes, length: int) -> Words:
    """The first `length` 64-bit words of ChaCha20's stream under a key that is used for nothing else."""
    return KeyStream(key).words(length)


def seal(key: bytes, plain: bytes, text: bytes) -> bytes:
    """`plain` encrypted and bound to `text`; `key` seals nothing else."""
    return ChaCha20Poly1305(key).encrypt(_NONCE, plain, text)


def unseal(key: bytes, sealed: bytes, text: bytes) -> bytes | None:
    """Inverse of `seal`; None where somebody else made it, or for another purpose."""
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, sealed, text)
    except InvalidTag:
        return None


def commitment(seed: bytes, text: bytes) -> bytes:
    """What is told of a seed beforehand, so that whoever puts its shares together knows whether they are right."""
    return hashlib.sha256(b"sfumato self-mask\x00" + text + b"\x00" + seed).digest()
