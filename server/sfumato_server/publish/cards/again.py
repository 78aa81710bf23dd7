"""Facts and cards of a set that is published already: what `sfumato dataset info` prints, and `card` renders anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.files import write_atomic
from sfumato_server.publish.cards import cards, gather
from sfumato_server.publish.cards.facts import SetFacts
from sfumato_server.publish.converted import open_statement
from sfumato_server.publish.manifest import COORDINATOR_KEY
from sfumato_server.publish.reading import PublishedFolder

RECORD = "facts.json"


def facts_of(published: PublishedFolder) -> SetFacts:
    """The facts of a set on disk; figures of use and versions are those of its facts.json, where it has one.

    Nothing is verified. Raises VerificationError when something cannot be read.
    """
    return gather(
        published.manifest,
        published.plan,
        published.tallies(),
        published.certificates(),
        published.read(COORDINATOR_KEY),
        _run(published),
    )


def write_cards(folder: Path, out: Path) -> list[str]:
    """Render the cards of the set in `folder` into the folder `out`; the names of the files.

    What needs the coordinator's signature is left out. Raises ConfigError when `out` is in the set: its files are
    signed, and one more breaks it.
    """
    if out.resolve() == folder.resolve() or folder.resolve() in out.resolve().parents:
        raise ConfigError("the cards cannot go into the set: every file of it is signed; choose a folder outside")
    written = cards(facts_of(open_statement(folder)))
    out.mkdir(parents=True, exist_ok=True)
    for name, data in written.items():
        write_atomic(out / name, data)
    return list(written)


def _run(published: PublishedFolder) -> Mapping[str, Any]:
    if RECORD not in published.manifest.files:
        return {}
    try:
        found = json.loads(published.read(RECORD))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise VerificationError(f"{RECORD} is malformed; do not trust this data set")
    return found
