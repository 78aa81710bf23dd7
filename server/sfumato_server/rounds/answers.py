"""The replies of one exchange as they come: each is held against the plan at once, and its arrays put away."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from sfumato_common.errors import VerificationError
from sfumato_common.protocol.messages import Reply
from sfumato_common.types import Arrays, Schema
from sfumato_server.rounds.channel import lost
from sfumato_server.rounds.outgoing import Outgoing

log = logging.getLogger(__name__)
Check = Callable[[str, Arrays], None]
# takes the arrays of a reply that counts, and gives what of them stays in memory
Keep = Callable[[str, Arrays], Arrays]


@dataclass
class Answers:
    """What sites said to `outgoing`, by site; `note` is told of each.

    A reply that does not fit `schema`, or fails `check`, is a lost one; the arrays of one that does go to `keep`.
    """

    outgoing: Outgoing
    schema: Schema
    check: Check
    keep: Keep
    note: Callable[[str, Reply], None]
    replies: dict[str, Reply] = field(default_factory=dict)
    bytes_up: int = 0

    def take(self, site: str, reply: Reply) -> bool:
        """See `channel.OnReply`."""
        if not self.outgoing.answered(site, reply):
            return False
        self.bytes_up += sum(value.nbytes for value in reply.arrays.values())
        possible = reply.status != "ok" or _is_possible(site, reply.arrays, self.schema, self.check)
        if reply.status == "missing" or not possible:
            reply = lost("bad-reply")
        if reply.status == "ok":
            reply = replace(reply, arrays=self.keep(site, reply.arrays))
        self.replies[site] = reply
        self.note(site, reply)
        return True


def _is_possible(site: str, arrays: Arrays, schema: Schema, check: Check) -> bool:
    """A reply counts only when it is exactly what the plan says, in names, dtypes, shapes, and by `check`."""
    if set(arrays) != set(schema) or not all(
        schema[name].matches(value) and schema[name].sound(value) for name, value in arrays.items()
    ):
        return False
    try:
        check(site, arrays)
    except VerificationError as error:
        log.warning("site %s: %s", site, error)
        return False
    return True
