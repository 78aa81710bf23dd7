"""The round loop's channel to sites in good standing: the registry is asked anew around every exchange."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Set

from sfumato_common.protocol.messages import Reply, Request
from sfumato_server.enrol import Registry
from sfumato_server.rounds.channel import Channel, OnReply, lost

log = logging.getLogger(__name__)


class MembersChannel:
    """Another channel, through which a revoked site is asked nothing and whose answers are dropped, also late ones."""

    def __init__(self, channel: Channel, registry: Registry) -> None:
        self._channel, self._registry = channel, registry

    def online(self) -> set[str]:
        """See Channel."""
        return self._channel.online() & self._registry.in_force()

    def exchange(
        self, requests: Mapping[str, Request], deadline_s: float, on_reply: OnReply, waited_for: Set[str]
    ) -> None:
        """See Channel. A site that was revoked, before or during the exchange, has failed with the code `revoked`."""

        def note(site: str, reply: Reply) -> bool:
            return on_reply(site, reply if site in self._registry.in_force() else lost("revoked"))

        asked = _Part(requests, {site for site in requests if site in self._registry.in_force()})
        self._channel.exchange(asked, deadline_s, note, waited_for & set(asked))
        members = self._registry.in_force()
        for site in sorted(set(requests) - members):
            log.warning("site %s was revoked: not asked, or its answer dropped", site)
            on_reply(site, lost("revoked"))


class _Part(Mapping[str, Request]):
    """The requests to some sites, each still made when it is looked up."""

    def __init__(self, requests: Mapping[str, Request], sites: Set[str]) -> None:
        self._requests, self._sites = requests, sites

    def __getitem__(self, site: str) -> Request:
        if site not in self._sites:
            raise KeyError(site)
        return self._requests[site]

    def __iter__(self) -> Iterator[str]:
        return (site for site in self._requests if site in self._sites)

    def __len__(self) -> int:
        return len(self._sites)
