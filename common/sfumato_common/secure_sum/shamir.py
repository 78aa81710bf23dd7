"""Secret sharing (Shamir 1979) of 32-byte secrets over the integers modulo the least prime above 2^256."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from functools import lru_cache

from sfumato_common.errors import VerificationError

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33


def split_secret(secret: bytes, threshold: int, points: Iterable[int]) -> dict[int, bytes]:
    """Shares by point, from 1: any `threshold` of them give the secret back, fewer say nothing of it.

    The polynomial's other coefficients are uniform, from the operating system.
    """
    places = sorted(points)
    assert len(secret) == SECRET_BYTES, "a secret has 32 bytes"
    assert 1 <= threshold <= len(places), "no more shares can be asked for than there are"
    assert len(set(places)) == len(places) and places[0] >= 1 and places[-1] < PRIME, "points are distinct, from 1"
    coefficients = [int.from_bytes(secret, "big"), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return {place: _value(coefficients, place).to_bytes(SHARE_BYTES, "big") for place in places}


def join_shares(shares: Mapping[int, bytes]) -> bytes:
    """The secret of exactly as many shares as its threshold. Raises VerificationError where they are none of one."""
    points = tuple(sorted(shares))
    values = [int.from_bytes(shares[point], "big") for point in points]
    if not points or any(len(share) != SHARE_BYTES for share in shares.values()) or max(values) >= PRIME:
        raise VerificationError("a share of a secret is malformed")
    weights = _weights(points)
    found = sum(weight * value for weight, value in zip(weights, values, strict=True)) % PRIME
    if found >= 2 ** (8 * SECRET_BYTES):
        raise VerificationError("shares do not belong to one secret")
    return found.to_bytes(SECRET_BYTES, "big")


def _value(coefficients: list[int], place: int) -> int:
    found = 0
    for coefficient in reversed(coefficients):
        found = (found * place + coefficient) % PRIME
    return found


# all secrets of a round are joined at the same points
@lru_cache(maxsize=64)
def _weights(points: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange's weights at 0."""
    weights = []
    for point in points:
        above = below = 1
        for other in points:
            if other != point:
                above = above * other % PRIME
                below = below * (other - point) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(weights)
