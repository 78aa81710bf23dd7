"""What an exchange makes, sends and keeps in memory: each array once a site, one request and one reply at a time."""

from __future__ import annotations

import dataclasses
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from support.answers import reply
from support.small_study import VALUES

from sfumato_common.protocol.flower import decode_request, encode
from sfumato_common.protocol.messages import PROTOCOL, Reply, Request
from sfumato_common.protocol.pack import array_digest
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.coordinator import flower_channel
from sfumato_server.coordinator.flower_channel import FlowerChannel
from sfumato_server.rounds.answers import Answers
from sfumato_server.rounds.checkpoint import Checkpoints
from sfumato_server.rounds.outgoing import Holdings, Outgoing
from sfumato_server.simulate.channel import LocalChannel

MEGABYTE = 2**20
BARE = Request(PROTOCOL, "0" * 64, "stage", "gan", 2, {})
FIXED = {"spectral/factor": np.ones((2, 3), np.float32)}
OK = reply()


def moving(value: float) -> dict:
    return {**FIXED, "w": np.full(4, value, np.float32)}


def outgoing(arrays, holdings=None, bare=BARE) -> Outgoing:
    return Outgoing(
        "abc", lambda site: bare, arrays if callable(arrays) else lambda site: arrays, holdings or Holdings()
    )


def test_what_a_site_answered_to_is_not_sent_again():
    holdings = Holdings()
    first = outgoing(moving(1.0), holdings)
    assert set(first["a"].arrays) == {"spectral/factor", "w"} and not first["a"].held
    first.answered("a", OK)
    first["b"], first.answered("b", reply(status="refused", code="ledger-refused"))
    second = outgoing(moving(2.0), holdings)
    assert second["a"].held == {"spectral/factor": array_digest("spectral/factor", FIXED["spectral/factor"])}
    assert set(second["a"].arrays) == {"w"}
    assert set(second["b"].arrays) == {"spectral/factor", "w"}, "it may have refused before it kept anything"
    assert second.bytes_down == 16 + 16 + 40
    release = {f"gan:{name}": value for name, value in moving(3.0).items()}
    make = outgoing(release, holdings, dataclasses.replace(BARE, kind="make", stage="", round=0))
    assert set(make["a"].held) == {"gan:spectral/factor"}, "by its own name, in whatever model it is"


def test_a_site_keeps_only_the_last_arrays_of_a_stage_and_is_thought_to():
    holdings = Holdings()
    for value in (1.0, 2.0):
        some = outgoing(moving(value), holdings)
        assert "w" in some["a"].arrays
        some.answered("a", OK)
    assert "w" in outgoing(moving(1.0), holdings)["a"].arrays
    assert "w" in outgoing(moving(2.0), holdings)["a"].held


def test_a_number_of_another_sign_or_type_is_another_array():
    holdings = Holdings()
    zero = outgoing({"w": np.zeros(2, np.float32)}, holdings)
    zero["a"], zero.answered("a", OK)
    for other in (-np.zeros(2, np.float32), np.zeros(2, np.int64), np.zeros((2, 1), np.float32)):
        both = outgoing(lambda site, other=other: {"w": np.zeros(2, np.float32) if site == "b" else other}, holdings)
        assert not both["b"].held and both["b"] is not both["a"]
        assert not both["a"].held


def test_a_site_that_lacks_something_is_sent_all_once():
    holdings = Holdings()
    first = outgoing(moving(1.0), holdings)
    first["a"], first.answered("a", OK)
    second = outgoing(moving(2.0), holdings)
    assert second["a"].held
    assert not second.answered("a", reply(status="missing")), "it is asked again"
    assert not second["a"].held
    assert second.answered("a", reply(status="missing")), "and not a third time"


def test_equal_requests_are_one_and_others_are_not():
    alike = outgoing(lambda site: moving(1.0))
    assert alike["a"] is alike["b"] is alike["c"]
    apart = outgoing(lambda site: moving(float(ord(site))))
    assert [float(apart[site].arrays["w"][0]) for site in "abc"] == [97.0, 98.0, 99.0]


class Grid:
    """Sites behind Flower's grid; those that are `lacking` have nothing of what they were sent."""

    def __init__(self, lacking=()):
        self.lacking, self.pushes, self.requests, self.open = set(lacking), [], [], {}

    def get_node_ids(self):
        return [0, 1, 2]

    def push_messages(self, messages):
        self.pushes.append(len(messages))
        identifiers = []
        for message in messages:
            node, request = message.node, decode_request(message.content)
            self.requests.append((node, request))
            identifiers.append(f"{node}:{len(self.requests)}")
            said = reply(status="missing") if node in self.lacking and request.held else OK
            self.open[identifiers[-1]] = encode(said)
        return identifiers

    def pull_messages(self, identifiers):
        for name in [name for name in identifiers if name in self.open]:
            about = SimpleNamespace(reply_to_message_id=name)
            yield SimpleNamespace(content=self.open.pop(name), metadata=about, has_error=lambda: False)


def test_flower_is_given_one_message_at_a_time_and_a_lacking_site_the_whole_at_once(monkeypatch):
    encoded, holdings, grid, told = [], Holdings(), Grid(lacking={1}), {}
    real = flower_channel.encode
    made = lambda content, dst_node_id, **_: SimpleNamespace(content=content, node=dst_node_id)  # noqa: E731
    monkeypatch.setattr(flower_channel, "Message", made)
    monkeypatch.setattr(flower_channel, "encode", lambda request: encoded.append(request) or real(request))
    channel = FlowerChannel(grid, lambda: {"a": 0, "b": 1, "c": 2}, lambda: set("abc"), 60.0)
    for value in (1.0, 2.0):
        some = outgoing(moving(value), holdings)

        def take(site, said, some=some):
            told[site] = said.status
            return some.answered(site, said)

        channel.exchange(some, 60.0, take, set("abc"))
    assert set(grid.pushes) == {1} and told == dict.fromkeys("abc", "ok")
    assert [(node, bool(request.held)) for node, request in grid.requests] == [
        (0, False), (1, False), (2, False), (0, True), (1, True), (2, True), (1, False),
    ]  # fmt: skip
    assert len(encoded) == 3, "equal requests are encoded once"


class Sites(LocalChannel):
    """Sites that answer with a megabyte each."""

    def __init__(self, number, at_once):
        self.names, self.at_once, self.most = [f"site-{index:02d}" for index in range(number)], at_once, 0

    def online(self):
        return set(self.names)

    def answer(self, site, request):
        return Reply(PROTOCOL, "ok", "", "", {"w": np.full(MEGABYTE // 4, float(site[-2:]), np.float32)})


@pytest.mark.parametrize("at_once", [1, 3])
def test_memory_does_not_grow_with_the_sites(tmp_path, at_once):
    channel, plan = Sites(40, at_once), parse(VALUES, Plan, "plan")
    schema = {"w": SimpleNamespace(matches=lambda value: True, sound=lambda value: True)}
    tracemalloc.start()
    with Checkpoints(tmp_path, plan).spool() as spool:
        requests = Outgoing(
            channel.names, lambda site: BARE, lambda site: {"w": np.ones(MEGABYTE // 4, np.float32)}, Holdings()
        )
        answers = Answers(requests, schema, lambda *_: None, spool.keep, lambda *_: None)
        channel.exchange(requests, 60.0, answers.take, set(channel.names))
        assert list(answers.replies) == channel.names or set(answers.replies) == set(channel.names)
        assert not any(said.arrays for said in answers.replies.values())
        total = sum(float(spool[site]["w"][0]) for site in spool)
        with pytest.raises(KeyError):
            spool["nobody"]
        with pytest.raises(ValueError, match="read-only"):
            spool["site-00"]["w"][0] = 1.0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == sum(range(40)) and answers.bytes_up == requests.bytes_down == 40 * MEGABYTE
    assert peak < 14 * MEGABYTE, "the replies of all sites are 40"
    assert not (tmp_path / plan.digest / "replies").exists(), "the round is over"
