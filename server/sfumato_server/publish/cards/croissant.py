"""croissant.json: the set in Croissant 1.1 (MLCommons) with its RAI fields 1.0: files, records, how they came to be."""

from __future__ import annotations

from typing import Any

from sfumato_common.files import canonical_json
from sfumato_server.publish.cards import words
from sfumato_server.publish.cards.facts import SetFacts
from sfumato_server.publish.manifest import LABELS
from sfumato_server.publish.tables import COLUMNS

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "equivalentProperty": "cr:equivalentProperty",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_TYPES = {"epsilon": "sc:Float", "delta": "sc:Float"}


def croissant(facts: SetFacts) -> bytes:
    """The description as canonical JSON-LD."""
    terms = facts.terms
    values: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": facts.plan.study,
        "alternateName": facts.title,
        "description": f"{facts.images} synthetic images of the study {facts.plan.study}. {words.covering(facts)}",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "datePublished": facts.created,
        "version": "1.0.0",
        "license": f"https://spdx.org/licenses/{terms.licence}.html" if terms.listed_licence else "LICENSE.md",
        "creator": [{"@type": "sc:Organization", "name": name} for name in (facts.plan.study, *facts.sites)],
        "citeAs": "See CITATION.cff.",
        "keywords": ["synthetic medical images", "differential privacy", "federated learning"],
        "isLiveDataset": False,
        **({"url": f"https://doi.org/{terms.doi}"} if terms.doi else {}),
        **_responsible(facts),
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": LABELS,
                "name": LABELS,
                "contentUrl": LABELS,
                "encodingFormat": "text/csv",
                "contentSize": f"{facts.labels.bytes} B",
                "sha256": facts.labels.sha256,
            },
            {
                "@type": "cr:FileSet",
                "@id": "image-files",
                "name": "image-files",
                "encodingFormat": "image/png",
                "includes": "images/*.png",
            },
        ],
        "recordSet": [_records()],
    }
    return canonical_json(values)


def _responsible(facts: SetFacts) -> dict[str, str]:
    """The RAI fields that something is known of; the others are left out."""
    terms = facts.terms
    found = {
        "dataCollection": "No patient's image was collected: each site trained on its own images, which stayed there. "
        + " ".join(words.how_made(facts)),
        "dataCollectionType": "Synthetic, by models that several sites trained together under differential privacy",
        "personalSensitiveInformation": words.covering(facts),
        "dataLimitations": " ".join((*words.LIMITS, words.NOT_SPLIT, *words.left_out(facts))),
        "dataBiases": "Not measured by group of patients. Numbers by class and site are the plan's, no prevalences.",
        "dataUseCases": terms.intended_use or words.NOT_STATED,
        "dataSocialImpact": words.NO_MEDICINE,
        "dataReleaseMaintenancePlan": f"Contact: {terms.contact or words.NOT_STATED}",
    }
    return {f"rai:{name}": text for name, text in found.items()}


def _records() -> dict[str, Any]:
    """A record an image: its row in labels.csv and its picture."""
    columns: list[dict[str, Any]] = [
        {
            "@type": "cr:Field",
            "@id": f"images/{name}",
            "name": name,
            "dataType": _TYPES.get(name, "sc:Text"),
            "source": {"fileObject": {"@id": LABELS}, "extract": {"column": name}},
        }
        for name in COLUMNS
    ]
    # rows are joined with pictures by the path in the folder; the pattern makes text of a path, which mlcroissant needs
    columns[0]["references"] = columns[0].pop("source")
    columns[0]["source"] = {
        "fileSet": {"@id": "image-files"},
        "extract": {"fileProperty": "fullpath"},
        "transform": {"regex": "^(.+)$"},
    }
    picture = {
        "@type": "cr:Field",
        "@id": "images/image",
        "name": "image",
        "dataType": "sc:ImageObject",
        "source": {"fileSet": {"@id": "image-files"}, "extract": {"fileProperty": "content"}},
    }
    return {
        "@type": "cr:RecordSet",
        "@id": "images",
        "name": "images",
        "key": {"@id": "images/file"},
        "field": [*columns, picture],
    }
