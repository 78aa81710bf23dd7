"""The append-only, hash-chained privacy ledger; the only writer of spends."""
