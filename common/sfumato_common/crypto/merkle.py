"""Merkle trees of RFC 6962 (section 2.1) over SHA-256: one root for many entries, and proofs that one of them is there.

A leaf is hashed behind a zero byte and a node behind a one, so that neither passes for the other. A tree of n leaves
splits at the largest power of two below n; a proof has one hash a level, the leaf's own end first. Pure functions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from sfumato_common.errors import VerificationError

LARGEST_PATH = 64  # hashes: more leaves than anybody has


def leaf_hash(entry: bytes) -> bytes:
    """The hash of a leaf [32 bytes]."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node [32 bytes] over those of its two halves."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def merkle_root(leaves: Iterable[bytes]) -> bytes:
    """The root [32 bytes] over leaf hashes, one after another; of none, the hash of nothing.

    It holds one hash for each power of two in the number so far.
    """
    stack: list[bytes] = []
    for number, leaf in enumerate(leaves):
        stack.append(leaf)
        while number & 1:
            right = stack.pop()
            stack.append(node_hash(stack.pop(), right))
            number >>= 1
    if not stack:
        return hashlib.sha256().digest()
    root = stack.pop()
    while stack:
        root = node_hash(stack.pop(), root)
    return root


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The proof that leaf `index` is among these leaf hashes: what it is hashed with, level by level, to the root."""
    assert 0 <= index < len(leaves)
    path: list[bytes] = []
    start, end = 0, len(leaves)
    while end - start > 1:
        middle = start + (1 << (end - start - 1).bit_length() - 1)
        if index < middle:
            path.append(merkle_root(leaves[middle:end]))
            end = middle
        else:
            path.append(merkle_root(leaves[start:middle]))
            start = middle
    return path[::-1]


def check_inclusion(root: bytes, leaf: bytes, index: int, count: int, path: Sequence[bytes]) -> None:
    """Raise VerificationError unless `path` leads from the hash `leaf`, at `index` of `count` leaves, to `root`.

    The walk of RFC 9162, section 2.1.3.2: no other length of a path, index or count does.
    """
    if not 0 <= index < count or len(path) > LARGEST_PATH or any(len(item) != 32 for item in (root, leaf, *path)):
        raise VerificationError("a proof of inclusion is malformed; ask for another")
    here, last, found = index, count - 1, leaf
    for other in path:
        if last == 0:
            raise VerificationError("a proof of inclusion does not lead to the signed root")
        if here & 1 or here == last:
            found = node_hash(other, found)
            while here and not here & 1:
                here, last = here >> 1, last >> 1
        else:
            found = node_hash(found, other)
        here, last = here >> 1, last >> 1
    if last or found != root:
        raise VerificationError("a proof of inclusion does not lead to the signed root")
