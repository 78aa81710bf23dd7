"""CITATION.cff (Citation File Format 1.2.0): how to cite the set; a placeholder for its DOI says that it is one."""

from __future__ import annotations

from typing import Any

import yaml

from sfumato_server.publish.cards.facts import SetFacts

# 10.5072 is DataCite's prefix for tests: it never resolves
PLACEHOLDER = "10.5072/placeholder"


def citation(facts: SetFacts) -> bytes:
    """The file; authors are the sites and the consortium, by the names in the plan."""
    terms = facts.terms
    given = "DOI of this set" if terms.doi else "Placeholder: no repository has given this set a DOI"
    authors = [f"Consortium of the study {facts.plan.study}", *facts.sites]
    values: dict[str, Any] = {
        "cff-version": "1.2.0",
        "message": "If you use this data set, please cite it as below.",
        "type": "dataset",
        "title": facts.title,
        "abstract": f"{facts.images} synthetic images of the study {facts.plan.study}.",
        "authors": [{"name": name} for name in authors],
        "date-released": facts.created,
        "version": facts.pixels[:12],
        **({"license": terms.licence} if terms.listed_licence else {}),
        "identifiers": [
            {"type": "doi", "value": terms.doi or f"{PLACEHOLDER}-{facts.pixels[:12]}", "description": given}
        ],
        "keywords": ["synthetic medical images", "differential privacy", "federated learning"],
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=10_000).encode()
