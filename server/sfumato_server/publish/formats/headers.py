"""The header of a synthetic image as DICOM (PS3.3 A.8: Secondary Capture), from entry and plan alone.

Nothing in it comes from a source image, and nothing from the machine that writes: the same entry, plan and set give the
same bytes. Whoever reads a set makes the header again and compares.
"""

from __future__ import annotations

import hashlib
from datetime import date
from typing import Any

from sfumato_common.study.words import GuaranteeLevel
from sfumato_server.publish.formats.base import About
from sfumato_server.publish.manifest import ImageEntry

_WORDS: dict[GuaranteeLevel, str] = {
    "formal": "formal: an epsilon covers all that it shows and is said to be",
    "formal, labels public": "formal for the pixels; no epsilon covers its label",
    "syntactic": "syntactic: k-anonymity of one step, no epsilon",
    "heuristic": "heuristic: measured by attacks, no epsilon",
}


def uid(about: About, kind: str, entry: ImageEntry) -> str:
    """A UID below 2.25 (PS3.5 B.2): a UUID of version 8 (RFC 9562, 5.8) from the sha256 of set, kind, site and name.

    The set is its signed manifest's sha256, so that an image of another version of a set is another object.
    """
    said = "\0".join(("sfumato/dicom/1", about.digest, kind, entry.site, entry.name))
    number = int.from_bytes(hashlib.sha256(said.encode("ascii")).digest()[:16], "big")
    number = number & ~(0xF << 76) | 8 << 76
    number = number & ~(0x3 << 62) | 2 << 62
    return f"2.25.{number}"


def own(entry: ImageEntry, number: int, about: About, kind: str) -> dict[str, str]:
    """What is an object's own: keyword -> value, of one whose first image is `entry`, at place `number` of the set."""
    return {
        "StudyInstanceUID": uid(about, f"{kind}-study", entry),
        "SeriesInstanceUID": uid(about, f"{kind}-series", entry),
        "SOPInstanceUID": uid(about, f"{kind}-instance", entry),
        "StudyID": str(number),
        "PatientName": f"Synthetic^{number:06d}",
        "PatientID": entry.name,
        "ImageComments": (
            f"SYNTHETIC, shows no patient. Label: {entry.label}. Site: {entry.site}. Method: {entry.method}. "
            f"Model: {entry.model}. Guarantee: {_WORDS[entry.guarantee]}. Image: {entry.name}"
        ),
    }


def shared(entry: ImageEntry, about: About) -> dict[str, Any]:
    """What all objects have whose images are said to be the same but for their names: keyword -> value."""
    shown = about.plan.shows
    created = date.fromisoformat(about.manifest.created).strftime("%Y%m%d")
    elements: dict[str, Any] = {
        # PS3.3 C.12.1: SOP Common
        "SyntheticData": "YES",
        # PS3.3 C.7.6.1: General Image; how the image lies is of type 2C, and nobody knows
        "ImageType": ["DERIVED", "SECONDARY"],
        "ContentDate": created,
        "PatientOrientation": None,
        "BurnedInAnnotation": "NO",
        "DerivationDescription": f"Synthetic image made by {entry.method} from model {entry.model}; shows no patient",
        # PS3.3 C.8.6.1: SC Equipment; SYN is "Synthetic Image"
        "ConversionType": "SYN",
        "StudyDate": created,
        "StudyDescription": f"Sfumato {about.manifest.study}: synthetic images",
        "SeriesDescription": f"Synthetic: {entry.label}",
        "Modality": shown.modality if shown else "OT",
        # PS3.3 C.7.1.1; no profile of CID 7050 was applied to anybody's header, so there is no code
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": [f"Synthetic image by {entry.method}", f"guarantee: {entry.guarantee}"],
    }
    if shown and shown.body_part:
        elements["BodyPartExamined"] = shown.body_part
    if shown and shown.view:
        elements["ViewPosition"] = shown.view
    # PS3.3 C.7.3.1: Laterality is of type 2C where Image Laterality is not there
    elements.update({"ImageLaterality": shown.laterality} if shown and shown.laterality else {"Laterality": None})
    return elements
