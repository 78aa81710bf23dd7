"""LICENSE.md: what the plan says of the set's licence, by its SPDX identifier; where it says none, none is invented."""

from __future__ import annotations

from sfumato_server.publish.cards.facts import SetFacts
from sfumato_server.publish.cards.markdown import plain
from sfumato_server.publish.cards.words import NOT_STATED


def licence(facts: SetFacts) -> bytes:
    """The statement, with the intended use and the contact beside it."""
    terms = facts.terms
    if terms.licence is None:
        said = [
            "The study's plan states no licence.",
            "Nothing here permits you to use, change or pass on these images: ask the coordinator.",
        ]
    else:
        where = "Its text is in the SPDX licence list." if terms.listed_licence else "The consortium has its text."
        whole = f"The images, tables and cards of this set are under this licence. {where}"
        said = [f"SPDX-License-Identifier: {terms.licence}", "", whole]
    lines = [
        f"# Licence of {plain(facts.title)}",
        *said,
        f"Intended use: {plain(terms.intended_use or NOT_STATED)}",
        f"Contact: {plain(terms.contact or NOT_STATED)}",
    ]
    return ("\n\n".join(filter(None, lines)) + "\n").encode()
