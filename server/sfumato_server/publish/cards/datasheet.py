"""DATASHEET.md: the questions of Gebru et al. 2021 (Datasheets for Datasets), answered by what is known and no more."""

from __future__ import annotations

from sfumato_server.publish.cards.facts import SetFacts
from sfumato_server.publish.cards.markdown import render


def datasheet(facts: SetFacts) -> bytes:
    """The datasheet; what nobody stated is said to be unknown."""
    return render("DATASHEET.md.j2", facts).encode()
