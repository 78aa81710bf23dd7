"""The round loop's channel over Flower's Grid, with deadlines of our own.

Flower's `send_and_receive` polls every 3 s and its strategies wait without end; this channel polls faster and tells a
site that works from one that is silent. A SuperNode reports as connected only while it lives, and answers an error by
itself when the task of a message is dead; so a site that is connected and has not answered works, and is waited for
until the limit of work. One whose message Flower gave up is asked the same again when it is back: it answers from what
it kept, or waits for its own work, and charges nothing twice.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from sfumato_common.errors import VerificationError
from sfumato_common.protocol.flower import decode_reply, encode, fetch_sooner
from sfumato_common.protocol.messages import Reply, Request
from sfumato_server.rounds.channel import GRACE, OnReply, lost

log = logging.getLogger(__name__)
# an answer is looked for again after a share of the time since it was asked for: one without work is there in a second
_POLL_SHARE, _SHORTEST_POLL_SECONDS, _LONGEST_POLL_SECONDS = 0.05, 0.05, 0.2
# how many sites' replies are fetched by one call: as many are in memory at once
_FETCHED = 16
# how often one exchange asks a site; what one that fell out late has to come back: Flower refuses a restarted SuperNode
# for about 60 s
_TRIES, _RETURN_SECONDS = 3, 120.0
# Flower drops what is older than its time to live by the receiver's clock, which may be off by an hour: the limit of
# work is held here, by this clock alone
_SPARE_SECONDS = 7200.0


@dataclass
class _Open:
    """What one exchange still waits for: messages by identifier, and until when sites that fell out may come back."""

    waiting: dict[str, str] = field(default_factory=dict)
    away: dict[str, float] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    answered: set[str] = field(default_factory=set)
    again: set[str] = field(default_factory=set)

    def drop(self, members: Set[str]) -> None:
        """Wait for none but `members`."""
        self.waiting = {identifier: site for identifier, site in self.waiting.items() if site in members}
        self.away = {site: until for site, until in self.away.items() if site in members}

    def sites(self, online: Set[str]) -> set[str]:
        """Those that work, being `online`, and those that may come back."""
        return {site for site in self.waiting.values() if site in online} | set(self.away)


class FlowerChannel:
    """Channel over Flower's Grid; `nodes` maps site names to registered node ids: sites may come while it runs.

    `members` names the sites in good standing, and is asked at every poll. A site at work is waited for `work_s`
    seconds at most.
    """

    def __init__(
        self, grid: Grid, nodes: Callable[[], Mapping[str, int]], members: Callable[[], Set[str]], work_s: float
    ) -> None:
        fetch_sooner()
        self._grid, self._nodes, self._members, self._work_s = grid, nodes, members, work_s

    def online(self) -> set[str]:
        """Names of the enrolled sites that are connected now."""
        names = {node: name for name, node in self._nodes().items()}
        return {names[node] for node in self._grid.get_node_ids() if node in names}

    def exchange(
        self, requests: Mapping[str, Request], deadline_s: float, on_reply: OnReply, waited_for: Set[str]
    ) -> None:
        """See Channel. Of a site that is silent nothing is handed on; an unreadable reply is a failed one.

        After the deadline those of `waited_for` that work are waited for, until the limit of work. A site that is
        revoked while the others work is silent too, and from then on not waited for.
        """
        start = time.monotonic()
        end, missing, still = start + deadline_s, set(waited_for), _Open()
        self._ask(list(requests), requests, still)
        while (still.waiting or still.away) and time.monotonic() < start + max(deadline_s, self._work_s):
            self._collect(still, end, on_reply)
            members = self._members()
            still.drop(members)
            self._ask(sorted(still.again & members), requests, still)
            if missing and not (missing := (missing - still.answered) & members):
                end = min(end, start + (1.0 + GRACE) * (time.monotonic() - start))
            if time.monotonic() >= end and not missing & still.sites(self.online()):
                break
            if back := set(still.away) & self.online():
                self._ask(sorted(back), requests, still)
            if still.waiting or still.away:
                waited = _POLL_SHARE * (time.monotonic() - start)
                time.sleep(min(max(waited, _SHORTEST_POLL_SECONDS), _LONGEST_POLL_SECONDS))
        for site in sorted(still.away):
            on_reply(site, lost("unreachable"))

    def _ask(self, sites: Sequence[str], requests: Mapping[str, Request], still: _Open) -> None:
        """Send requests, each as a new message, one after the other; equal ones are encoded once."""
        last: tuple[Request, RecordDict] | None = None
        nodes, ttl = self._nodes(), self._work_s + _SPARE_SECONDS
        for site in sites:
            request = requests[site]
            if last is None or last[0] is not request:
                last = request, encode(request)
            message = Message(last[1], dst_node_id=nodes[site], message_type="train", ttl=ttl)
            still.asked[site] += 1
            still.away.pop(site, None)
            still.again.discard(site)
            for identifier in self._grid.push_messages([message]):
                if identifier:
                    still.waiting[identifier] = site

    def _collect(self, still: _Open, end: float, on_reply: OnReply) -> None:
        """Take what came; a message that Flower gave up leaves its site time to come back."""
        now, open_ = time.monotonic(), list(still.waiting)
        for some in (open_[first : first + _FETCHED] for first in range(0, len(open_), _FETCHED)):
            for message in self._grid.pull_messages(some):
                site = still.waiting.pop(message.metadata.reply_to_message_id)
                if _given_up(message) and still.asked[site] < _TRIES:
                    code = message.error.code
                    log.warning("site %s: fell out (Flower code %s); asked again when it is back", site, code)
                    still.away[site] = max(end, now + _RETURN_SECONDS)
                else:
                    (still.answered if on_reply(site, self._read(site, message)) else still.again).add(site)
        for site in [site for site, until in still.away.items() if until <= now]:
            del still.away[site]
            still.answered.add(site)
            on_reply(site, lost("unreachable"))

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


def _given_up(message: Message) -> bool:
    """Whether Flower says that the site, or the message's task, is gone: the site itself has not spoken."""
    return bool(message.has_error()) and message.error.reason != "bundle-refused"
