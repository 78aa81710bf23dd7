"""The requests of one exchange, made one at a time as a channel looks them up, without what a site has already.

A site keeps the arrays of the last request of each stage, and of the release, and is sent their digests from then on.
What the coordinator remembers of that lasts for one run; a site that lacks an array says so, and is sent all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from sfumato_common.generators import GENERATORS
from sfumato_common.generators.components import arrays_for
from sfumato_common.protocol.messages import Reply, Request
from sfumato_common.protocol.pack import array_digest
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays, Schema


class Holdings:
    """Digests of the arrays that each site has: those of the last request of each stage that it answered."""

    def __init__(self) -> None:
        self._by_site: dict[str, dict[tuple[str, str], frozenset[str]]] = {}

    def of(self, site: str, digests: Mapping[str, str]) -> dict[str, str]:
        """Those of `digests` whose arrays the site has."""
        kept = self._by_site.get(site, {}).values()
        return {name: digest for name, digest in digests.items() if any(digest in each for each in kept)}

    def note(self, site: str, request: Request, digests: frozenset[str]) -> None:
        """The site answered `request`, whose arrays have these digests."""
        if request.kind in ("stage", "make", "sum-values"):
            self._by_site.setdefault(site, {})[request.kind, request.stage] = digests

    def forget(self, site: str) -> bool:
        """The site lacks what it was thought to have; whether it was thought to have anything."""
        return self._by_site.pop(site, None) is not None


class Outgoing(Mapping[str, Request]):
    """Requests by site: what `bare` and `arrays` say for the site. Each look-up makes one, and counts its bytes.

    Sites whose requests are equal are given the very same one. Nothing but the last is kept.
    """

    def __init__(
        self,
        sites: Iterable[str],
        bare: Callable[[str], Request],
        arrays: Callable[[str], Arrays],
        holdings: Holdings,
    ) -> None:
        self._sites, self._bare, self._arrays, self._holdings = list(sites), bare, arrays, holdings
        self._by_site: dict[str, frozenset[str]] = {}
        # the last request, and its arrays with their digests
        self._request: Request | None = None
        self._bare_last: Request | None = None
        self._digests, self._all = dict[str, str](), frozenset[str]()
        self._last: dict[str, tuple[AnyArray, str]] = {}
        self.bytes_down = 0

    def __iter__(self) -> Iterator[str]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)

    def __contains__(self, site: object) -> bool:
        return site in self._sites

    def __getitem__(self, site: str) -> Request:
        if site not in self._sites:
            raise KeyError(site)
        arrays = self._arrays(site)
        self._last = {name: (value, self._digest(name, value)) for name, value in arrays.items()}
        digests = {name: digest for name, (_, digest) in self._last.items()}
        held = self._holdings.of(site, digests)
        bare, request = self._bare(site), self._request
        if request is None or bare != self._bare_last or digests != self._digests or held != request.held:
            brought = {name: value for name, value in arrays.items() if name not in held}
            request = self._request = replace(bare, arrays=brought, held=held)
            self._bare_last = bare
        if digests != self._digests:
            self._digests, self._all = digests, frozenset(digests.values())
        self._by_site[site] = self._all
        self.bytes_down += sum(value.nbytes for value in request.arrays.values())
        return request

    def answered(self, site: str, reply: Reply) -> bool:
        """Take note of an answer; False where the site lacks arrays and is to be asked again, which happens once."""
        if reply.status == "missing":
            return not self._holdings.forget(site)
        if reply.status in ("ok", "pending", "review") and site in self._by_site:
            self._holdings.note(site, self._bare(site), self._by_site[site])
        return True

    def _digest(self, name: str, value: AnyArray) -> str:
        before = self._last.get(name)
        if before is not None and _is_same(before[0], value):
            return before[1]
        return array_digest(name, value)


def stage_arrays(plan: Plan, sent: Schema, outbound: Callable[[str], Arrays]) -> Callable[[str], Arrays]:
    """What of a strategy's `outbound`, which has schema `sent`, goes to a site."""
    return lambda site: arrays_for(plan, site, sent, outbound(site))


def release_arrays(plan: Plan, models: Mapping[str, Arrays]) -> Callable[[str], Arrays]:
    """What of the final models by kind goes to a site, as 'KIND:NAME'."""
    schemas = {kind: GENERATORS[kind].released(plan) for kind in models}
    return lambda site: {
        f"{kind}:{name}": value
        for kind, arrays in models.items()
        for name, value in arrays_for(plan, site, schemas[kind], arrays).items()
    }


def _is_same(one: AnyArray, two: AnyArray) -> bool:
    # bytes, not values: -0.0 is another number to a digest
    alike = one.dtype == two.dtype and one.shape == two.shape
    return one is two or (alike and np.array_equal(_bits(one), _bits(two)))


def _bits(value: AnyArray) -> AnyArray:
    return np.ascontiguousarray(value).reshape(-1).view(np.uint8)
