"""Who is in which cohort, by keyed pseudonym: what a patient's charges are bound to. Never leaves a site."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Members:
    """Pseudonyms of `train` and of `holdout` patients; `key` names the secret key that made them, and is not it."""

    key: str
    train: frozenset[str] = field(default=frozenset(), repr=False)
    holdout: frozenset[str] = field(default=frozenset(), repr=False)

    def __post_init__(self) -> None:
        assert not self.train & self.holdout, "a patient is in one cohort"


def pseudonym(split_key: bytes, patient_id: str) -> str:
    """What the store keeps instead of a patient id: 32 hexadecimal digits, the same at every ingest of this site."""
    return hmac.digest(split_key, b"pseudonym\0" + patient_id.encode(), hashlib.sha256).hex()[:32]


def key_name(split_key: bytes) -> str:
    """What tells a split key from another one, and says nothing of it: 32 hexadecimal digits."""
    return hmac.digest(split_key, b"name\0", hashlib.sha256).hex()[:32]
