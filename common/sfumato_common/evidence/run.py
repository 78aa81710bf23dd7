"""The certificate of a run: what a program under no plan took from the patients of a ledger; signed (RFC 8032).

A run is named by the sha256 of its statement, which is in the ledger before its first charge and in the certificate.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field

from sfumato_common.crypto.signatures import verify
from sfumato_common.errors import VerificationError
from sfumato_common.files import canonical_json
from sfumato_common.package.manifest import Hash
from sfumato_common.strict import Strict, read_signed
from sfumato_common.study.certificate import Certificate, Noise, Text
from sfumato_common.study.plan import Name

FORMAT: Literal["sfumato-run/1"] = "sfumato-run/1"


class RunStatement(Strict):
    """What a run says of itself before it touches anybody.

    `tool` is whose code draws the noise. `mechanisms`: 'recorded' where the ledger's own recorder draws and counts, and
    'stated' where the charges are the word of the program that runs. `rests_on`: what must be true for the epsilons to
    hold and the ledger cannot see, a sentence each. `code` is the sha256 of the program, where it was given.
    """

    format: Literal["sfumato-run/1"] = FORMAT
    study: Name
    purpose: Text
    tool: Text
    mechanisms: Literal["recorded", "stated"]
    noise: Noise
    rests_on: Annotated[list[Text], Field(max_length=20)]
    code: Hash | None = None

    @property
    def digest(self) -> str:
        """The sha256 under which the ledger is charged; where a plan's digest stands otherwise."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json"))).hexdigest()


class LedgerHead(Strict):
    """Number and hash of the ledger's last row when the certificate was made: a later one has gone on from there."""

    number: Annotated[int, Field(ge=0)]
    hash: Hash


class RunCertificate(Certificate):
    """What a ledger states about one run. `plan_hash` is the statement's digest.

    `charges` were made, `open` of them never noted as carried out; both are counted in every epsilon.
    """

    format: Literal["sfumato-run/1"]
    site: Name
    study: Name
    plan_hash: Hash
    statement: RunStatement
    charges: Annotated[int, Field(ge=1)]
    open: Annotated[int, Field(ge=0)]
    head: LedgerHead

    def encode(self) -> bytes:
        """The bytes that are written and signed: in the order of the fields."""
        return (json.dumps(self.model_dump(mode="json"), indent=2) + "\n").encode("ascii")


def open_run_certificate(data: bytes, signature: bytes, public_key: bytes | None) -> RunCertificate:
    """The certificate in `data`; its signature is checked where the ledger's public key (PEM) is given.

    Raises VerificationError when it is none, when the signature does not hold, or when its statement is not the run's.
    """
    if public_key is not None:
        verify(public_key, "run", data, signature)
    stated = read_signed(
        data,
        RunCertificate,
        RunCertificate.encode,
        "this is no run's certificate of this version's form; ask its maker again",
        "a run's certificate is not in its one allowed form; ask its maker again",
    )
    if stated.plan_hash != stated.statement.digest or stated.study != stated.statement.study:
        raise VerificationError("a run's certificate states another run than it was charged for; do not rely on it")
    if stated.noise != stated.statement.noise:
        raise VerificationError("a run's certificate says of its noise what its statement does not; do not rely on it")
    return stated
