"""The header of a synthetic image as DICOM (PS3.3 A.8: Secondary Capture), from entry and plan alone.

Nothing in it comes from a source image, and nothing from the machine that writes: the same entry, plan and set give the
same bytes. Whoever reads a set makes the header again and compares.
"""

from __future__ import annotations

import hashlib
from datetime import date
from typing import Any, NamedTuple

from sfumato_common.study.words import GuaranteeLevel
from sfumato_server.publish.formats.base import About
from sfumato_server.publish.manifest import ImageEntry

_WORDS: dict[GuaranteeLevel, str] = {
    "formal": "formal: an epsilon covers all that it shows and is said to be",
    "formal, labels public": "formal for the pixels; no epsilon covers its label",
    "syntactic": "syntactic: k-anonymity of one step, no epsilon",
    "heuristic": "heuristic: measured by attacks, no epsilon",
}


class Header(NamedTuple):
    """What stands the same in every kind of object: keyword and value, in the order of their setting."""

    study_uid: str
    series_uid: str
    instance_uid: str
    name: str
    elements: dict[str, Any]


def uid(about: About, kind: str, entry: ImageEntry) -> str:
    """A UID below 2.25 (PS3.5 B.2): a UUID of version 8 (RFC 9562, 5.8) from the sha256 of set, kind, site and name.

    The set is its signed manifest's sha256, so that an image of another version of a set is another object.
    """
    said = "\0".join(("sfumato/dicom/1", about.digest, kind, entry.site, entry.name))
    number = int.from_bytes(hashlib.sha256(said.encode("ascii")).digest()[:16], "big")
    number = number & ~(0xF << 76) | 8 << 76
    number = number & ~(0x3 << 62) | 2 << 62
    return f"2.25.{number}"


def header(entry: ImageEntry, number: int, about: About, kind: str) -> Header:
    """The header of an object whose first image is `entry`, at place `number` (from 1) of the set."""
    shown = about.plan.image.shows
    created = date.fromisoformat(about.manifest.created).strftime("%Y%m%d")
    elements: dict[str, Any] = {
        # PS3.3 C.12.1: SOP Common
        "SyntheticData": "YES",
        "ImageType": ["DERIVED", "SECONDARY"],
        # PS3.3 C.8.6.1: SC Equipment; SYN is "Synthetic Image"
        "ConversionType": "SYN",
        "StudyDate": created,
        "ContentDate": created,
        "StudyDescription": f"Sfumato {about.manifest.study}: synthetic images",
        "SeriesDescription": f"Synthetic: {entry.label}",
        "Modality": shown.modality if shown else "OT",
        "DerivationDescription": f"Synthetic image made by {entry.method} from model {entry.model}; shows no patient",
        "ImageComments": (
            f"SYNTHETIC, shows no patient. Label: {entry.label}. Site: {entry.site}. Method: {entry.method}. "
            f"Model: {entry.model}. Guarantee: {_WORDS[entry.guarantee]}. Image: {entry.name}"
        ),
        # PS3.3 C.7.1.1; no profile of CID 7050 was applied to a header, so there is no code
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": [
            f"Synthetic image by {entry.method}",
            f"guarantee: {entry.guarantee}",
        ],
        "BurnedInAnnotation": "NO",
    }
    if shown:
        optional = {
            "BodyPartExamined": shown.body_part,
            "ViewPosition": shown.view,
            "ImageLaterality": shown.laterality,
        }
        elements.update({keyword: value for keyword, value in optional.items() if value is not None})
    uids = (uid(about, f"{kind}-{level}", entry) for level in ("study", "series", "instance"))
    return Header(*uids, name=f"Synthetic^{number:06d}", elements=elements)
