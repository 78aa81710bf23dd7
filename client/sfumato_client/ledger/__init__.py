"""The append-only, hash-chained privacy ledger; the only writer of spends."""

from sfumato_client.ledger.book import Ledger
from sfumato_client.ledger.chain import Reservation

__all__ = ["Ledger", "Reservation"]
