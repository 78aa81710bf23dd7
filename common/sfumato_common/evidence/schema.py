"""The one JSON Schema of every certificate (JSON Schema 2020-12), generated from the models that write and read them.

`docs/schema/certificate-VERSION.json` is what this module says; a test holds it, and the hashes of published versions.
A changed model is a new version: a schema that was published never changes.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter

from sfumato_common.evidence.decided import StewardDecisions
from sfumato_common.evidence.run import RunCertificate
from sfumato_common.strict.schema import ecma
from sfumato_common.study.certificate import Certificate
from sfumato_common.tabular.certificate import TableCertificate

VERSION = 2
# sha256 of docs/schema/certificate-VERSION.json as it was published; a line is added, and never changed
PUBLISHED: dict[int, str] = {
    1: "8bfb40b483e22705a622e45f834d1b8cae0fc2caa9e52970a72d6e99b3240399",
    2: "1f5fd1664598fcae91b60db2f23e12bca0a342d4bc1a9a5315868c2f71901cd8",
}


def certificate_schema() -> dict[str, Any]:
    """A certificate of a release, a table or a run, or stewards' decisions.

    Its `format` says which of these; a release's has none.
    """
    models: Any = RunCertificate | TableCertificate | StewardDecisions | Certificate
    schema = TypeAdapter(models).json_schema(mode="validation")
    title = f"sfumato certificate, version {VERSION}"
    return dict(ecma({"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **schema}))


def schema_bytes() -> bytes:
    """The bytes of the published file."""
    return (json.dumps(certificate_schema(), indent=2, sort_keys=True) + "\n").encode("ascii")
