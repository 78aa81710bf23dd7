"""sbom.spdx.json: a bill of materials (SPDX 2.3) of the installed distributions that made the set at the coordinator.

Names, versions and licences are those of the installed metadata. Nothing of the machine is in it, nor of a site: what a
site has installed, the coordinator does not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sfumato_common.files import canonical_json
from sfumato_server.publish.cards.facts import SetFacts

ROOTS = ("sfumato", "sfumato-coordinator", "sfumato-common")
UNKNOWN = "NOASSERTION"


def sbom(facts: SetFacts) -> bytes:
    """The bill as canonical JSON."""
    found = sorted(installed())
    return canonical_json(
        {
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": f"{facts.plan.study}-{facts.pixels[:12]}",
            "documentNamespace": f"urn:sfumato:sbom:{facts.pixels}",
            "creationInfo": {"created": f"{facts.created}T00:00:00Z", "creators": ["Tool: sfumato"]},
            "packages": [
                {
                    "name": name,
                    "SPDXID": _identifier(name),
                    "versionInfo": version,
                    "downloadLocation": UNKNOWN,
                    "filesAnalyzed": False,
                    "licenseConcluded": UNKNOWN,
                    "licenseDeclared": licence,
                    "copyrightText": UNKNOWN,
                    "externalRefs": [
                        {
                            "referenceCategory": "PACKAGE-MANAGER",
                            "referenceType": "purl",
                            "referenceLocator": f"pkg:pypi/{name}@{version}",
                        }
                    ],
                }
                for name, version, licence in found
            ],
            "relationships": [
                {
                    "spdxElementId": "SPDXRef-DOCUMENT",
                    "relationshipType": "DESCRIBES",
                    "relatedSpdxElement": _identifier(name),
                }
                for name, _, _ in found
            ],
        }
    )


def installed() -> Iterator[tuple[str, str, str]]:
    """(name, version, licence) of the coordinator's distributions and of all that they need, as far as installed."""
    waiting, seen = list(ROOTS), set[str]()
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        try:
            own = distribution(name)
        except PackageNotFoundError:
            continue
        yield name, own.version, _licence(own)
        waiting += [need.name for need in map(Requirement, own.requires or []) if _needed(need)]


def _needed(need: Requirement) -> bool:
    """Whether it is needed without any extra, on this interpreter."""
    return need.marker is None or need.marker.evaluate({"extra": ""})


def _licence(own: Distribution) -> str:
    """The declared SPDX expression (PEP 639); older metadata say it in words, which are taken where SPDX knows them."""
    said = next((own.metadata[name] for name in ("License-Expression", "License") if name in own.metadata), "")
    try:
        return str(canonicalize_license_expression(said))
    except InvalidLicenseExpression:
        return UNKNOWN


def _identifier(name: str) -> str:
    return "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", name)
