"""facts.json: what the other cards say, for programs: counts, figures of cost and use, versions; one JSON object."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sfumato_common.files import canonical_json
from sfumato_server.publish.cards.facts import SetFacts

FORMAT = "sfumato-facts/1"


def record(facts: SetFacts) -> bytes:
    """The facts as canonical JSON."""
    return canonical_json(values(facts))


def values(facts: SetFacts) -> dict[str, Any]:
    """The facts as JSON values; an infinite figure is null."""
    cover = facts.cover
    return {
        "format": FORMAT,
        "study": facts.plan.study,
        "plan_hash": facts.plan_hash,
        "created": facts.created,
        "images": facts.images,
        "size": facts.plan.image.size,
        "channels": facts.plan.image.channels,
        "bits": facts.plan.image.bits,
        "groups": [{**group._asdict(), "images": number} for group, number in sorted(facts.tally.items())],
        "epsilon": None if cover is None else {**asdict(cover), "adjacency": facts.plan.privacy.adjacency},
        "sites": facts.sites,
        "left_out": dict(facts.left_out),
        "duplicates": facts.duplicates,
        "near_duplicates": facts.near,
        "like_withdrawn": facts.withdrawn,
        "publication": facts.terms.model_dump(mode="json"),
        "pixels": facts.pixels,
        "utility": facts.run.get("utility"),
        "choice": facts.run.get("choice"),
        "versions": facts.run.get("versions"),
    }
