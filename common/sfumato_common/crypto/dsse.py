"""DSSE envelopes v1.0.2 (Dead Simple Signing Envelope) by Ed25519: what tools of the supply chain read and check.

What is signed begins with `DSSEv1`, and every other signature of ours with `sfumato/v1`: none serves as the other.
"""

from __future__ import annotations

import base64
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sfumato_common.crypto.signatures import fingerprint, public_pem

IN_TOTO = "application/vnd.in-toto+json"


def envelope(key: Ed25519PrivateKey, payload: bytes, payload_type: str = IN_TOTO) -> dict[str, Any]:
    """The envelope of `payload` as JSON values, with one signature; `keyid` is the key's fingerprint."""
    signature = key.sign(authenticated(payload, payload_type))
    return {
        "payload": base64.b64encode(payload).decode("ascii"),
        "payloadType": payload_type,
        "signatures": [
            {
                "keyid": fingerprint(public_pem(key.public_key())),
                "sig": base64.b64encode(signature).decode("ascii"),
            }
        ],
    }


def authenticated(payload: bytes, payload_type: str) -> bytes:
    """The pre-authentication encoding, which is what is signed: both parts with their lengths before them."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
