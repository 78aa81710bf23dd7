"""Numbers of things in sentences: '1 image', '2 images', '1,000 studies'."""

from __future__ import annotations


def count_text(number: int, one: str, many: str = "") -> str:
    """`number` of what is called `one`, and where they are several `many`, by default `one` with an s."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
