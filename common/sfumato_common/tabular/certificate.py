"""The certificate of a released table: the common one, with what a table adds, signed by its site (Ed25519, RFC 8032).

`certificate.json` is written for people, epsilon first; `certificate.sig` is over its bytes, in the domain "table".
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field

from sfumato_common.crypto.signatures import verify
from sfumato_common.errors import VerificationError
from sfumato_common.package.manifest import Hash
from sfumato_common.strict import read_signed
from sfumato_common.study.certificate import Certificate
from sfumato_common.study.plan import Name
from sfumato_common.study.words import TableMethod

TABLE, CERTIFICATE, SIGNATURE, SCHEMA = "table.csv", "certificate.json", "certificate.sig", "schema.json"
FORMAT: Literal["sfumato-table/1"] = "sfumato-table/1"


class TableCertificate(Certificate):
    """What a site states about one table. `plan_hash`, under which the ledger was charged, is the schema's hash.

    `table_sha256` is over `table.csv` as it lies beside the certificate; the ledger keeps the same one.
    """

    format: Literal["sfumato-table/1"]
    site: Name
    table: Name
    plan_hash: Hash
    table_sha256: Hash
    rows: Annotated[int, Field(ge=1)]
    method: TableMethod
    guarantee: Literal["formal"]
    signal: str

    @property
    def study(self) -> str:
        """The name under which the ledger was charged."""
        return f"table-{self.table}"

    def encode(self) -> bytes:
        """The bytes that are written and signed: in the order of the fields."""
        return (json.dumps(self.model_dump(mode="json"), indent=2) + "\n").encode("ascii")


def open_certificate(data: bytes, signature: bytes, table: bytes, public_key: bytes | None) -> TableCertificate:
    """The certificate of `table`; its signature is checked where the site's key (PEM) is given.

    Raises VerificationError when it is none, when the signature does not hold, or when it is about another table.
    """
    if public_key is not None:
        verify(public_key, "table", data, signature)
    stated = read_signed(
        data,
        TableCertificate,
        TableCertificate.encode,
        "this is no table's certificate of this version's form; ask the site again",
        "a table's certificate is not in its one allowed form; ask the site again",
    )
    if hashlib.sha256(table).hexdigest() != stated.table_sha256:
        raise VerificationError(f"'{TABLE}' is not the table that its certificate is about; ask the site again")
    return stated
