"""README.md with the front matter of a Hugging Face dataset card: `datasets` loads the set offline in one line."""

from __future__ import annotations

from typing import Any

import yaml

from sfumato_common.study.publication import PublicationTerms
from sfumato_server.publish.cards.facts import SetFacts
from sfumato_server.publish.cards.markdown import render
from sfumato_server.publish.manifest import SPLIT_TABLES
from sfumato_server.publish.tables import COLUMNS, SPLITS

# the hub names sizes by powers of ten
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def readme(facts: SetFacts) -> bytes:
    """The card: front matter, then what a reader has to know first."""
    front = yaml.safe_dump(_front(facts), sort_keys=False, allow_unicode=True, width=10_000)
    return f"---\n{front}---\n\n{render('README.md.j2', facts)}".encode()


def _front(facts: SetFacts) -> dict[str, Any]:
    return {
        "pretty_name": facts.title,
        **_licence(facts.terms),
        "task_categories": ["image-classification"],
        **({"task_ids": ["multi-class-image-classification"]} if len(facts.plan.labels) > 2 else {}),
        "tags": ["medical", "synthetic", "differential-privacy", "federated-learning"],
        "size_categories": [next((name for most, name in _SIZES if facts.images < most), "n>1M")],
        "configs": [
            {
                "config_name": "default",
                "drop_labels": True,
                "features": _features(facts),
                "metadata_filenames": [SPLIT_TABLES[split] for split in SPLITS],
                "data_files": [
                    # two pictures by name say that these are pictures; a pattern would list a million files
                    {"split": split, "path": [SPLIT_TABLES[split], *facts.examples[split]]}
                    for split in SPLITS
                    if facts.of_split(split)
                ],
            }
        ],
    }


def _licence(terms: PublicationTerms) -> dict[str, str]:
    """The hub knows common licences by SPDX identifiers in small letters; any other is named beside `other`."""
    if terms.licence and terms.listed_licence and " " not in terms.licence:
        return {"license": terms.licence.lower()}
    return {"license": "other", "license_name": (terms.licence or "not-stated").lower(), "license_link": "LICENSE.md"}


def _features(facts: SetFacts) -> list[dict[str, Any]]:
    names = {str(at): label for at, label in enumerate(facts.plan.labels)}
    figures = {"epsilon": "float64", "delta": "float64"}
    return [
        {"name": "image", "dtype": "image"},
        {"name": "label", "dtype": {"class_label": {"names": names}}},
        *({"name": name, "dtype": figures.get(name, "string")} for name in COLUMNS[2:]),
    ]
