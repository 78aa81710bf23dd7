"""How the round loop talks to sites: a small protocol; its Flower form is in `coordinator.flower_channel`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Protocol

from sfumato_common.protocol.messages import PROTOCOL, Reply, Request

# how long sites that are not waited for may take beyond the others, in parts of the others' time
GRACE = 0.5
# takes a site's reply; False where it is no answer yet, and the site is to be asked again
OnReply = Callable[[str, Reply], bool]


class Channel(Protocol):
    """A way to reach sites by name."""

    def online(self) -> set[str]:
        """Names of the enrolled sites that are connected now."""
        ...

    def exchange(
        self, requests: Mapping[str, Request], deadline_s: float, on_reply: OnReply, waited_for: Set[str]
    ) -> None:
        """Send one request a site, and hand each reply that comes before the deadline to `on_reply`, at once.

        A request is made when it is looked up: once for each time that the site is asked. Neither it nor the reply is
        kept. A site that works is waited for beyond the deadline, where the channel can tell that it does. Once all of
        `waited_for` answered, the others are given half as long again as these took.
        """
        ...


def lost(code: str) -> Reply:
    """What stands for a site whose answer never came or could not be read."""
    return Reply(PROTOCOL, "failed", code, "", {})
