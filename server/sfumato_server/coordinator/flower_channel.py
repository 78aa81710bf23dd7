"""The round loop's channel over Flower's Grid, with deadlines of our own.

Flower's `send_and_receive` polls every 3 s and its strategies wait without end; this channel polls faster, stops at the
deadline, reports every site that did not answer, and waits for none that was revoked meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Set

from flwr.app import Message
from flwr.serverapp import Grid

from sfumato_common.errors import VerificationError
from sfumato_common.protocol.flower import decode_reply, encode
from sfumato_common.protocol.messages import Reply, Request
from sfumato_server.rounds.channel import GRACE, OnReply, lost

log = logging.getLogger(__name__)
_POLL_SECONDS = 0.5


class FlowerChannel:
    """Channel over Flower's Grid; `nodes` maps site names to registered node ids.

    `members` names the sites in good standing, and is asked at every poll.
    """

    def __init__(self, grid: Grid, nodes: Mapping[str, int], members: Callable[[], Set[str]]) -> None:
        self._grid, self._members = grid, members
        self._nodes = dict(nodes)
        self._names = {node: name for name, node in nodes.items()}

    def online(self) -> set[str]:
        """Names of the enrolled sites that are connected now."""
        return {self._names[node] for node in self._grid.get_node_ids() if node in self._names}

    def exchange(
        self, requests: Mapping[str, Request], deadline_s: float, on_reply: OnReply, waited_for: Set[str]
    ) -> dict[str, Reply]:
        """See Channel. A site that fell silent is missing from the result; an unreadable reply is a failed one.

        A site that is revoked while the others work is missing too, and from then on not waited for.
        """
        start = time.monotonic()
        end, missing = start + deadline_s, set(waited_for)
        messages = [
            Message(encode(request), dst_node_id=self._nodes[site], message_type="train", ttl=deadline_s + 30)
            for site, request in requests.items()
        ]
        waiting = {
            identifier: site
            for identifier, site in zip(self._grid.push_messages(messages), requests, strict=True)
            if identifier
        }
        replies: dict[str, Reply] = {}
        while waiting and time.monotonic() < end:
            for message in self._grid.pull_messages(list(waiting)):
                site = waiting.pop(message.metadata.reply_to_message_id)
                replies[site] = self._read(site, message)
                on_reply(site, replies[site])
            members = self._members()
            waiting = {identifier: site for identifier, site in waiting.items() if site in members}
            if missing and not (missing := (missing - set(replies)) & members):
                end = min(end, start + (1.0 + GRACE) * (time.monotonic() - start))
            if waiting:
                time.sleep(_POLL_SECONDS)
        return replies

    @staticmethod
    def _read(site: str, message: Message) -> Reply:
        if message.has_error():
            log.warning("site %s: no usable reply (Flower code %s)", site, message.error.code)
            return lost("bundle-refused" if message.error.reason == "bundle-refused" else "unreachable")
        try:
            return decode_reply(message.content)
        except VerificationError as error:
            log.warning("site %s: reply refused: %s", site, error)
            return lost("bad-reply")
