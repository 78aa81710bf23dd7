"""Keyed hashes that stand for whatever names a patient: all that the store and its questions know of who is who.

HMAC-SHA256 under the site's split key (RFC 2104), a purpose each. Two values are equal where their tokens are, and
nobody without the key can tell which value it was, or try values.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace

import numpy as np

from sfumato_client.dataset.splits import keyed_split
from sfumato_client.ingest import Entry, SiteImage, Stamp, bare_number, id_kind, plain_id
from sfumato_common.accounting.members import pseudonym

TOKEN_BYTES = 16


def token(split_key: bytes, purpose: str, value: str) -> str:
    """32 hexadecimal digits for a value; the empty value stays empty."""
    if not value:
        return ""
    return hmac.digest(split_key, f"{purpose}\0{value}".encode(), hashlib.sha256).hex()[: 2 * TOKEN_BYTES]


def entry_of(image: SiteImage, split_key: bytes) -> Entry:
    """What is known of an image, with tokens for what names its patient. The reference stays: it is the report's."""
    said = image.facts
    hidden = {name: token(split_key, name, getattr(said, name)) for name in ("instance", "study", "person")}
    hidden["others"] = " ".join(alike_token(split_key, other) for other in said.others.split("\n") if other)
    digest = hashlib.sha256(np.ascontiguousarray(image.pixels).tobytes()).digest()[:TOKEN_BYTES]
    return Entry(
        patient_id=pseudonym(split_key, image.patient_id),
        label=image.label,
        split=image.split,
        view=image.view,
        digest=digest,
        facts=replace(said, **hidden),
        notes=image.notes,
        alike=alike_token(split_key, image.patient_id),
        kind=id_kind(image.patient_id),
        drawn=keyed_split(split_key, image.patient_id),
        bare=token(split_key, "alike", bare_number(image.patient_id)),
    )


def alike_token(split_key: bytes, patient_id: str) -> str:
    """The token of all identifiers that differ from this one in what does not count."""
    return token(split_key, "alike", plain_id(patient_id))


def row_tokens(stamp: Stamp, split_key: bytes, settings: str) -> tuple[str, str]:
    """The tokens of what a row is about, and of all its words with what the source says of reading them."""
    words = json.dumps([stamp.about, stamp.words, settings])
    return token(split_key, "about", stamp.about), token(split_key, "row", words)
