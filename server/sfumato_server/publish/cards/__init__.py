"""Cards of a published set: files that say what it is, each rendered from `SetFacts`; one line a card in CARDS."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sfumato_common.crypto.dsse import envelope
from sfumato_common.files import canonical_json
from sfumato_server.publish.cards.attestation import statement
from sfumato_server.publish.cards.citation import citation
from sfumato_server.publish.cards.croissant import croissant
from sfumato_server.publish.cards.datasheet import datasheet
from sfumato_server.publish.cards.facts import SetFacts, gather
from sfumato_server.publish.cards.hugging_face import readme
from sfumato_server.publish.cards.licence import licence
from sfumato_server.publish.cards.record import record
from sfumato_server.publish.cards.sbom import sbom

CARDS: Mapping[str, Callable[[SetFacts], bytes]] = {
    "README.md": readme,
    "DATASHEET.md": datasheet,
    "LICENSE.md": licence,
    "CITATION.cff": citation,
    "croissant.json": croissant,
    "facts.json": record,
    "sbom.spdx.json": sbom,
    "statement.intoto.json": statement,
}
# what goes into an envelope that the coordinator's key signs
ENVELOPED = frozenset({"statement.intoto.json"})

__all__ = ["CARDS", "ENVELOPED", "SetFacts", "cards", "gather"]


def cards(facts: SetFacts, key: Ed25519PrivateKey | None = None) -> dict[str, bytes]:
    """Every card by the name of its file; without the coordinator's `key`, those that it signs are left out."""
    found = {name: render(facts) for name, render in CARDS.items() if key is not None or name not in ENVELOPED}
    if key is not None:
        found |= {name: canonical_json(envelope(key, found[name])) for name in ENVELOPED}
    return found
