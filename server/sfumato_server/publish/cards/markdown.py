"""Markdown cards from templates: whatever a plan's people wrote stands in them as text, never as markup."""

from __future__ import annotations

import re

from jinja2 import Environment, PackageLoader, StrictUndefined

from sfumato_server.publish.cards import words
from sfumato_server.publish.cards.facts import SetFacts

_MARKUP = re.compile(r"([\\`*_{}\[\]<>#+|!~&])")


def plain(text: str) -> str:
    """Text whose every mark of Markdown (CommonMark 0.31) is escaped."""
    return _MARKUP.sub(r"\\\1", text)


def render(template: str, facts: SetFacts) -> str:
    """A card's text; `facts` and the shared sentences are what a template knows."""
    environment = Environment(
        loader=PackageLoader("sfumato_server.publish"),
        autoescape=False,  # noqa: S701 - Markdown, whose marks `plain` escapes
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = plain
    return environment.get_template(template).render(facts=facts, terms=facts.terms, words=words)
