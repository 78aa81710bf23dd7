"""What a published set is, in one screen: for `sfumato dataset info`."""

from __future__ import annotations

from collections.abc import Iterator

from sfumato_common.count_text import count_text
from sfumato_server.publish.cards import words
from sfumato_server.publish.cards.facts import SetFacts

# sections of counts: heading and fields of a group
_COUNTS = (
    ("images by site", ("site",)),
    ("by label", ("label",)),
    ("by method, model and guarantee", ("method", "model", "guarantee")),
    ("by split", ("split",)),
)


def summary(facts: SetFacts) -> list[str]:
    """Lines for the screen; who wants to compute with them takes facts.json."""
    image = facts.plan.image
    form = f"{image.size} x {image.size}, {'grey' if image.channels == 1 else 'colour'}, {image.bits} bits"
    return [
        f"{facts.title}",
        f"study '{facts.plan.study}', published {facts.created}, plan {facts.plan_hash[:16]}",
        f"{count_text(facts.images, 'image')} ({form}) of {', '.join(facts.sites)}",
        words.covering(facts),
        f"licence: {facts.terms.licence or 'not stated'}",
        f"use: {words.use(facts)}",
        *_counts(facts),
        *(f"left out: {line}" for line in words.left_out(facts)),
        *(f"left out: {line}" for line in words.left_out_images(facts)),
    ]


def _counts(facts: SetFacts) -> Iterator[str]:
    for heading, fields in _COUNTS:
        rows = facts.by(*fields)
        yield f"{heading}:"
        yield from (f"  {number:>9}  {', '.join(names)}" for names, number in rows)
