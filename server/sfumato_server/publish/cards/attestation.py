"""statement.intoto.json: an in-toto Statement v1 with SLSA provenance v1, about the pixels and the table."""

from __future__ import annotations

from typing import Any

from sfumato_common.crypto.signatures import fingerprint
from sfumato_common.files import canonical_json
from sfumato_server.publish.cards.facts import SetFacts
from sfumato_server.publish.manifest import LABELS

PIXELS = "pixels"


def statement(facts: SetFacts) -> bytes:
    """The statement that the envelope carries.

    Its subjects are labels.csv and the hashes of all decoded pixels, which are the same in every format of the images.
    """
    how = "sha256 over a line 'SITE/NAME PIXEL_SHA256' and a line feed for every image, in the manifest's order"
    values: dict[str, Any] = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": LABELS, "digest": {"sha256": facts.labels.sha256}},
            {"name": PIXELS, "digest": {"sha256": facts.pixels}, "annotations": {"how": how, "images": facts.images}},
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:sfumato:published-set:1",
                "externalParameters": {"study": facts.plan.study, "plan": {"sha256": facts.plan_hash}},
                "resolvedDependencies": [
                    {"name": name, "digest": {"sha256": digest}} for name, digest in facts.statements.items()
                ],
            },
            "runDetails": {"builder": {"id": f"urn:sfumato:coordinator:{fingerprint(facts.coordinator_key)}"}},
        },
    }
    return canonical_json(values)
