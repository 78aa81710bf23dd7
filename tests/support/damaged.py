"""Bytes that are surely not what they were."""


def flipped(data: bytes, at: int = -1) -> bytes:
    """`data` with one bit of the byte at `at` turned: a fixed byte there is no change once in 256 times."""
    wrong = bytearray(data)
    wrong[at] ^= 1
    return bytes(wrong)
