"""The round loop's channel to sites of this machine: no Flower between, and no deadline, since all of them are here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Set
from concurrent.futures import ThreadPoolExecutor, as_completed

from sfumato_common.protocol.messages import Reply, Request
from sfumato_server.rounds.channel import OnReply


class LocalChannel(ABC):
    """A `Channel` whose sites answer through `answer`, which a subclass has; `at_once` of them at a time."""

    at_once = 1

    @abstractmethod
    def answer(self, site: str, request: Request) -> Reply:
        """What `site` says to `request`."""

    @abstractmethod
    def online(self) -> set[str]:
        """See Channel."""

    def exchange(
        self, requests: Mapping[str, Request], deadline_s: float, on_reply: OnReply, waited_for: Set[str]
    ) -> dict[str, Reply]:
        """See Channel; everybody who is online is waited for.

        Replies are in the order of `requests`, whoever was first, so that sums over them are the same in every run.
        """
        del deadline_s, waited_for
        online = self.online()
        requests = {site: request for site, request in requests.items() if site in online}
        if self.at_once == 1:
            replies = {}
            for site, request in requests.items():
                replies[site] = self.answer(site, request)
                on_reply(site, replies[site])
            return replies
        with ThreadPoolExecutor(self.at_once) as threads:
            asked = {threads.submit(self.answer, site, request): site for site, request in requests.items()}
            found = {}
            try:
                for done in as_completed(asked):
                    found[asked[done]] = done.result()
                    on_reply(asked[done], found[asked[done]])
            finally:
                threads.shutdown(wait=False, cancel_futures=True)  # Ctrl-C waits for nobody who has not begun
        return {site: found[site] for site in requests}
