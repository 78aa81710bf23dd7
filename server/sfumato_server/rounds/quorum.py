"""What an exchange came to: one line for the log, and its end where fewer sites than the quorum answered."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from sfumato_common.errors import FederationError
from sfumato_common.protocol.messages import Reply

log = logging.getLogger(__name__)


def log_exchange(what: str, number: int, replies: Mapping[str, Reply]) -> None:
    """Say how many of the sites that were asked answered round `number` of `what`."""
    good = sum(reply.status == "ok" for reply in replies.values())
    told = {"event": "exchange", "stage": what, "round": number, "asked": len(replies), "ok": good}
    log.info("'%s' round %d: %d of %d sites answered", what, number, good, len(replies), extra={"fields": told})


def require_quorum(what: str, number: int, replies: Mapping[str, Reply], quorum: int) -> None:
    """Raise FederationError where fewer than `quorum` sites answered."""
    good = sum(reply.status == "ok" for reply in replies.values())
    if good >= quorum:
        return
    reasons = ", ".join(f"{site}: {reply.code or reply.status}" for site, reply in sorted(replies.items()))
    raise FederationError(
        f"'{what}' round {number}: {good} of the {quorum} sites of the quorum answered "
        f"({reasons or 'no site online'}); the sites' own logs say why"
    )
