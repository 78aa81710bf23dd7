"""Independent check of a run's certificate against an exported ledger: statement, charges, and every epsilon anew."""

from __future__ import annotations

from sfumato_client.ledger.check import CheckReport, report_on
from sfumato_client.ledger.export import read_export
from sfumato_common.errors import LedgerError, VerificationError
from sfumato_common.evidence.run import open_run_certificate


def check_run(export: bytes, certificate: bytes, signature: bytes, public_key: bytes | None) -> CheckReport:
    """Recompute a run's certificate from `export`; its signature is checked if the ledger's key (PEM) is given.

    Raises LedgerError when the export was altered, ends before the certificate, or charged more than is stated;
    VerificationError when the certificate is another ledger's or none. `require` raises for epsilons that disagree.
    """
    ledger = read_export(export)
    stated = open_run_certificate(certificate, signature, public_key)
    if stated.site != ledger.site:
        raise VerificationError("the certificate was made from another ledger than the exported one")
    if ledger.row_hashes.get(stated.head.number) != stated.head.hash:
        raise LedgerError(
            "the exported ledger does not hold the row that the certificate ends at; bring a later export"
        )
    counted = [entry for entry in ledger.charges if entry.plan_hash == stated.plan_hash]
    if len([entry for entry in counted if entry.number <= stated.head.number]) != stated.charges:
        raise LedgerError("the certificate counts other charges than the exported ledger holds; do not rely on it")
    return report_on(ledger, stated.study, stated.plan_hash, stated, public_key is not None)
