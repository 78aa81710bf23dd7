"""The round loop's channel to sites of this machine: no Flower between, and no deadline, since all of them are here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Set
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

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
    ) -> None:
        """See Channel; everybody who is online is waited for."""
        del deadline_s, waited_for
        online = self.online()
        left = deque(site for site in requests if site in online)
        if self.at_once == 1:
            while left:
                if not on_reply(left[0], self.answer(left[0], requests[left[0]])):
                    continue
                left.popleft()
            return
        with ThreadPoolExecutor(self.at_once) as threads:
            asked: dict[Future[Reply], str] = {}
            try:
                while left or asked:
                    while left and len(asked) < self.at_once:
                        site = left.popleft()
                        asked[threads.submit(self.answer, site, requests[site])] = site
                    for done in wait(asked, return_when=FIRST_COMPLETED).done:
                        site = asked.pop(done)
                        if not on_reply(site, done.result()):
                            left.appendleft(site)
            finally:
                threads.shutdown(wait=False, cancel_futures=True)  # Ctrl-C waits for nobody who has not begun
