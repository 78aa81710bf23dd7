"""How the round loop talks to sites: a small protocol; its Flower form is in `coordinator.flower_channel`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Protocol

from sfumato_common.protocol.messages import PROTOCOL, Reply, Request

# how long sites that are not waited for may take beyond the others, in parts of the others' time
GRACE = 0.5
OnReply = Callable[[str, Reply], None]


class Channel(Protocol):
    """A way to reach sites by name."""

    def online(self) -> set[str]:
        """Names of the enrolled sites that are connected now."""
        ...

    def exchange(
        self, requests: Mapping[str, Request], deadline_s: float, on_reply: OnReply, waited_for: Set[str]
    ) -> dict[str, Reply]:
        """Send one request a site; the replies that came before the deadline. `on_reply` is told of each at once.

        A site that works is waited for beyond the deadline, where the channel can tell that it does. Once all of
        `waited_for` answered, the others are given half as long again as these took.
        """
        ...


def lost(code: str) -> Reply:
    """What stands for a site whose answer never came or could not be read."""
    return Reply(PROTOCOL, "failed", code, "", {})
