"""The append-only, hash-chained privacy ledger; the only writer of spends."""

from sfumato_client.ledger.book import Ledger
from sfumato_client.ledger.chain import Reservation
from sfumato_client.ledger.charged import Charge, Terms

__all__ = ["Charge", "Ledger", "Reservation", "Terms"]
