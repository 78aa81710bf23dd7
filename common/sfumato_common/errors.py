"""Every error a user can meet, by what that user has to do about it.

Each class carries an exit code for the shell and a short `wire_code`, the only part of an error that may leave a site
(privacy rule 3: no exception texts leave). The message is for the screen or the site's own log.
"""

from __future__ import annotations


class SfumatoError(Exception):
    """Base of all expected failures: what was wrong, where, what to do; never shown as a traceback."""

    exit_code = 1
    wire_code = "failed"


class ConfigError(SfumatoError):
    """A plan, policy or command line is wrong: edit it."""

    exit_code = 2
    wire_code = "bad-config"


class PolicyRefusal(SfumatoError):
    """The site's own policy forbids what was asked: change the plan, or let the site change its policy."""

    exit_code = 3
    wire_code = "policy-refused"


class BudgetExceeded(PolicyRefusal):
    """The spend would pass the site's privacy budget: ask for less, nothing was touched."""

    wire_code = "budget-exceeded"


class DataError(SfumatoError):
    """The data cannot be read or does not suffice: check the folder, the index or the cohort."""

    exit_code = 4
    # no code of its own on the wire: that a cohort is small or a file broken is nobody's business outside
    wire_code = "failed"


class PacsError(SfumatoError):
    """The PACS does not answer, or not as it should: ask its people; what was fetched stays, and the same goes on."""

    exit_code = 12
    wire_code = "failed"


class BusyError(SfumatoError):
    """Something else holds the port, the folder or the run: stop it or choose another."""

    exit_code = 5
    wire_code = "busy"


class WorkerLost(BusyError):
    """A process that shared the work died or hangs: nothing is wrong with the question, and it is asked again."""


class NoRoomError(SfumatoError):
    """The disk is full: make room; what was asked then goes on where it stood."""

    exit_code = 11
    wire_code = "no-room"


class VerificationError(SfumatoError):
    """A hash, signature or schema does not hold: do not trust the bytes; ask the sender again."""

    exit_code = 6
    wire_code = "verification-failed"


class UnverifiedOrigin(SfumatoError):
    """All of it holds, but nobody says who made it: bring the maker's public key from a source that you trust."""

    exit_code = 3
    wire_code = "unverified-origin"


class FederationError(SfumatoError):
    """The federation cannot go on: too few sites, a deadline passed, or a site that is not enrolled."""

    exit_code = 7
    wire_code = "federation-failed"


class LedgerError(SfumatoError):
    """The privacy ledger is damaged or was asked for something impossible: stop and inspect it."""

    exit_code = 8
    wire_code = "ledger-refused"


class EgressRefused(SfumatoError):
    """An outbound message does not match what plan and policy allow: it was not sent."""

    exit_code = 9
    wire_code = "egress-refused"


class ReleaseRefused(SfumatoError):
    """The gate did not approve the candidates: nothing is released."""

    exit_code = 10
    wire_code = "release-refused"
