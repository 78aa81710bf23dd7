"""Sites that work are not silent: slow machines, deadlines as operations, late joiners, and a run that goes on."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from support.federations import make_federation
from support.studies import PLAN

from sfumato_common.accounting.events import Declared
from sfumato_common.errors import ConfigError
from sfumato_common.protocol.flower import decode_request, encode
from sfumato_common.study.costs import study_events
from sfumato_server.coordinator import flower_channel
from sfumato_server.coordinator.flower_channel import FlowerChannel
from sfumato_server.coordinator.run import Listen, run_coordinator
from sfumato_server.coordinator.study import run_study
from sfumato_server.rounds.channel import lost
from sfumato_server.rounds.deadlines import GO_ON, Deadlines

SHORT = {**copy.deepcopy(PLAN), "stages": PLAN["stages"][:1], "release": PLAN["release"][:1], "utility": None}


class SlowGrid:
    """Flower's grid over sites of this process, which answer `took[site]` seconds of its own clock after a question.

    Hello is answered at once. The replies of a site in `cut` to stages never arrive, though it worked: what it
    answered is in its home.
    """

    def __init__(self, federation, took, cut=()):
        self.federation, self.took, self.cut = federation, took, set(cut)
        self.names, self.now, self.open = sorted(federation.sites), 0.0, {}

    def get_node_ids(self):
        return range(len(self.names))

    def push_messages(self, messages):
        identifiers = []
        for node, content in messages:
            site, request = self.names[node], decode_request(content)
            reply = self.federation.sites[site].handle(request)
            self.federation.sent.append((site, request, reply))
            identifiers.append(f"{site}:{len(self.federation.sent)}")
            lost = site in self.cut and request.kind == "stage"
            due = float("inf") if lost else self.now + (5.0 if request.kind == "hello" else self.took[site])
            self.open[identifiers[-1]] = (due, encode(reply))
        return identifiers

    def pull_messages(self, identifiers):
        return [Answer(name, self.open[name][1]) for name in identifiers if self.open[name][0] <= self.now]


class Answer:
    def __init__(self, identifier, content):
        self.metadata = type("Metadata", (), {"reply_to_message_id": identifier})
        self.content = content

    def has_error(self):
        return False


@pytest.fixture
def short(tmp_path):
    return make_federation(tmp_path, SHORT)


def run(monkeypatch, federation, took, cut=()):
    grid = SlowGrid(federation, took, cut)
    monkeypatch.setattr(flower_channel.time, "monotonic", lambda: grid.now)
    monkeypatch.setattr(
        flower_channel.time, "sleep", lambda seconds: setattr(grid, "now", grid.now + max(seconds, 9.0))
    )
    monkeypatch.setattr(flower_channel, "Message", lambda content, dst_node_id, **_: (dst_node_id, content))
    nodes = {site: node for node, site in enumerate(grid.names)}
    channel = FlowerChannel(grid, lambda: nodes, lambda: set(nodes), federation.coordinator.deadlines().work_s)
    return run_study(federation.coordinator, channel, seed=1, classifier_steps=5), grid


def charged_once(federation):
    for site in federation.sites:
        with federation.home(site).open_ledger() as ledger:
            train = [
                event for event in ledger.events("train", federation.plan.digest) if not isinstance(event, Declared)
            ]
            assert train == study_events(federation.plan, "train")


def test_a_study_on_slow_machines_publishes(short, monkeypatch):
    """The failure that was seen: all was paid, every site still worked at the deadline, and nothing was published."""
    took = {"alder": 700.0, "birch": 900.0, "cedar": 4000.0}
    assert min(took.values()) > 10 * short.plan.federation.round_deadline_s
    home = short.coordinator
    home.write_deadlines(Deadlines.of(short.plan, work_hours=0.0))  # as it was: at the deadline all are silent
    assert run(monkeypatch, short, {**dict.fromkeys(took, 50.0), "birch": 900.0, "cedar": 4000.0})[0] == "stopped"
    charged_once(short)
    home.write_deadlines(Deadlines.of(short.plan))
    outcome, grid = run(monkeypatch, short, took)
    assert outcome == "completed", short.result()["reason"]
    assert all(said == dict.fromkeys(took, "ok") for said in (item["sites"] for item in short.result()["exchanges"]))
    assert grid.now > 3 * 4000
    charged_once(short)


def test_a_study_that_stopped_says_run_again_and_goes_on_with_the_late_answers(short, monkeypatch):
    took = dict.fromkeys(short.sites, 5.0)
    outcome, _ = run(monkeypatch, short, took, cut={"birch", "cedar"})
    assert outcome == "stopped"
    assert "1 of the 2 sites of the quorum answered" in short.result()["reason"]
    assert short.result()["reason"].endswith(GO_ON)
    before = {site: reply for site, request, reply in short.sent if request.kind == "stage"}
    assert set(before) == set(short.sites), "all of them paid"
    short.sent.clear()
    outcome, _ = run(monkeypatch, short, took)
    assert outcome == "completed", short.result()["reason"]
    for site, _, reply in [item for item in short.sent if item[1].kind == "stage"]:
        assert reply.arrays.keys() == before[site].arrays.keys()
        assert all(np.array_equal(reply.arrays[name], value) for name, value in before[site].arrays.items())
    charged_once(short)


def test_a_site_that_comes_late_or_was_silent_at_first_takes_part_in_the_next_exchange(short):
    exchange, short.down = short.exchange, {"cedar"}

    def later(requests, *rest):
        replies = exchange(requests, *rest)
        short.down = set()
        return replies

    short.exchange = later
    assert run_study(short.coordinator, short, seed=1, classifier_steps=5) == "completed"
    kinds = [(request.kind, reply.status) for site, request, reply in short.sent if site == "cedar"]
    assert kinds == [("stage", "ok"), ("make", "ok"), ("send", "ok")]


@pytest.mark.parametrize("code", ["unreachable", "bad-reply"])
def test_a_site_whose_answers_are_broken_does_not_hold_up_the_release(short, code):
    """Connected, and an error to every question: nothing of it is work that could be waited for."""
    answer = short.answer
    short.answer = lambda site, request: lost(code) if site == "cedar" else answer(site, request)
    assert run_study(short.coordinator, short, seed=1, classifier_steps=5) == "completed"
    makes = [
        item["sites"] for item in short.result()["exchanges"] if item["stage"] == "make" and "cedar" in item["sites"]
    ]
    assert makes and all(said["cedar"] == f"failed {code}" for said in makes)
    assert len(makes) == 3


def test_a_study_that_broken_answers_stopped_says_whose_are_to_be_mended_before_it_goes_on(short):
    answer = short.answer
    short.answer = lambda site, request: answer(site, request) if site == "alder" else lost("bad-reply")
    assert run_study(short.coordinator, short, seed=1, classifier_steps=5) == "stopped"
    assert short.result()["reason"].endswith(f"; when birch, cedar can answer, {GO_ON}")


def test_deadlines_are_of_a_run_and_not_of_the_plan(short, tmp_path, monkeypatch):
    monkeypatch.delenv("SFUMATO_CA_PASSPHRASE", raising=False)
    plan, home = short.plan, short.coordinator
    assert home.deadlines() == Deadlines(60.0, 6 * 3600.0)
    assert Deadlines.of(plan, 900.0, work_hours=0.0) == Deadlines(900.0, 900.0)
    home.write_deadlines(Deadlines.of(plan, 900.0))
    assert home.deadlines() == Deadlines(900.0, 6 * 3600.0)
    assert home.plan().digest == plan.digest
    with pytest.raises(ConfigError, match="less than the plan's least, 60 s"):
        run_coordinator(home.root, tmp_path / "out", Listen("127.0.0.1", 1, 2), deadline_s=59.0)
    assert run_study(home, short, seed=1, classifier_steps=5) == "completed"
    assert {deadline for deadline in short.deadlines} == {900.0}
