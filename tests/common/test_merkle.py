"""RFC 6962's tree against its own recursive definition, its published test values, and proofs that lie."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato_common.crypto.merkle import check_inclusion, inclusion_path, leaf_hash, merkle_root, node_hash
from sfumato_common.errors import VerificationError

# inputs and roots of the reference implementation (google/certificate-transparency, merkle tree tests)
INPUTS = [bytes.fromhex(text) for text in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def oracle(entries: list[bytes]) -> bytes:
    """Section 2.1 as it is written."""
    if len(entries) < 2:
        return hashlib.sha256(b"\x00" + entries[0]).digest() if entries else hashlib.sha256(b"").digest()
    half = 1
    while 2 * half < len(entries):
        half *= 2
    return hashlib.sha256(b"\x01" + oracle(entries[:half]) + oracle(entries[half:])).digest()


def test_the_published_roots_come_out() -> None:
    for count, root in enumerate(ROOTS, 1):
        assert merkle_root(map(leaf_hash, INPUTS[:count])).hex() == root == oracle(INPUTS[:count]).hex()
    assert merkle_root([]) == oracle([])


@given(st.lists(st.binary(max_size=8), max_size=70))
def test_every_leaf_is_proved_and_the_root_is_the_definitions(entries: list[bytes]) -> None:
    leaves = list(map(leaf_hash, entries))
    root = merkle_root(iter(leaves))
    assert root == oracle(entries)
    for index, leaf in enumerate(leaves):
        path = inclusion_path(leaves, index)
        assert len(path) <= max(1, len(leaves) - 1).bit_length()
        check_inclusion(root, leaf, index, len(leaves), path)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13, 16])
def test_a_proof_serves_for_one_leaf_at_one_place_of_one_tree(count: int) -> None:
    leaves = [leaf_hash(bytes([number])) for number in range(count)]
    root = merkle_root(leaves)
    for index, leaf in enumerate(leaves):
        path = inclusion_path(leaves, index)
        wrong = [
            (root, leaf_hash(b"another"), index, count, path),
            (leaf_hash(b"root"), leaf, index, count, path),
            (root, leaf, index, count, [*path, leaf]),
            (root, leaf, index, count, [leaf, *path]),
            (root, leaf, -1, count, path),
            (root, leaf, count, count, path),
            (root, leaf, index, 0, path),
            (root, leaf[:-1], index, count, path),
        ]
        wrong += [(root, leaf, other, count, path) for other in range(count) if other != index]
        wrong += [(root, leaf, index, count, path[:-1]), (root, leaf, index, count, path[1:])] if path else []
        wrong += [(root, leaf, index, count, path[::-1])] if path != path[::-1] else []
        for case in wrong:
            with pytest.raises(VerificationError):
                check_inclusion(*case)


def test_a_node_passes_for_no_leaf() -> None:
    """Without the prefixes an inner node could be presented as an entry of a smaller tree."""
    leaves = [leaf_hash(bytes([number])) for number in range(4)]
    root = merkle_root(leaves)
    halves = [node_hash(*leaves[:2]), node_hash(*leaves[2:])]
    assert leaf_hash(leaves[0] + leaves[1]) != halves[0]
    with pytest.raises(VerificationError):
        check_inclusion(root, leaf_hash(leaves[0] + leaves[1]), 0, 2, [halves[1]])
