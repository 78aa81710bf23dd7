"""A site that stays silent costs a study its deadline once; and it comes back when it answers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from support.answers import Answers, reply, study_run
from support.studies import PLAN

from sfumato_common.errors import FederationError
from sfumato_common.protocol.messages import PROTOCOL, Reply, Request
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.coordinator import flower_channel
from sfumato_server.coordinator.flower_channel import FlowerChannel
from sfumato_server.coordinator.members import MembersChannel
from sfumato_server.enrol import revoke
from sfumato_server.rounds import patience
from sfumato_server.rounds.channel import lost
from sfumato_server.rounds.patience import Losses, Patience

SITES = {"alder", "birch", "cedar"}
WORK_S = 3600.0


@pytest.fixture
def run(tmp_path):
    plan = parse(copy.deepcopy(PLAN), Plan, "plan")
    found = study_run(tmp_path, plan, Answers(plan, {site: lambda request: reply() for site in plan.sites}))
    found.accepted = set(plan.sites)
    return found


def waited_for(run) -> list[set[str]]:
    return [waited for _, _, waited in run.channel.asked]


def test_a_silent_site_is_asked_but_not_waited_for(run):
    run.channel.others["cedar"] = lambda request: None
    for _ in range(6):
        replies = run.ask("hello", {})
        assert replies["cedar"].code == "silent"
    assert waited_for(run) == [SITES] + 5 * [SITES - {"cedar"}]
    assert all(asked == SITES for _, asked, _ in run.channel.asked)


def test_it_is_waited_for_again_after_it_answered_twice_as_often_with_every_silence(run):
    talks = iter([False, True, True, True, False, True, True, True, True, True])
    run.channel.others["cedar"] = lambda request: reply() if next(talks) else None
    for _ in range(10):
        run.ask("hello", {})
    assert ["cedar" in waited for waited in waited_for(run)] == [True, False, False, True, True, *4 * [False], True]


def test_a_site_that_is_silent_now_and_then_costs_as_many_deadlines_as_the_logarithm_of_the_rounds():
    patience, deadlines = Patience(), 0
    for _ in range(1000):  # the worst: it is silent whenever it is waited for
        if "cedar" in patience.waited_for(SITES, 2):
            deadlines += 1
            patience.note(SITES, SITES - {"cedar"})
        else:
            patience.note(SITES, SITES)
    assert deadlines <= 10


def test_where_the_others_are_no_quorum_all_are_waited_for(run):
    run.channel.others["birch"] = run.channel.others["cedar"] = lambda request: None
    for _ in range(2):
        run.ask("hello", {}, quorum=1)
    assert waited_for(run)[-1] == {"alder"}
    run.channel.others["birch"] = lambda request: reply()
    assert run.ask("hello", {}, quorum=2)["birch"].status == "ok"
    assert waited_for(run)[-1] == SITES


def released(run, **others):
    run.released = {"spectral": {"spectral/x": np.zeros(1, np.float32)}, "gan": {}, "flow": {}}
    run.channel.others |= others
    return run.release()


def kinds(run) -> list[str]:
    return [kind for kind, *_ in run.channel.asked]


def test_a_site_that_stays_silent_does_not_hold_up_the_release(run):
    assert released(run, cedar=lambda request: None) == SITES - {"cedar"}
    assert kinds(run) == ["make", "send"]


def test_a_site_that_the_question_did_not_reach_is_asked_again_to_make_its_release(run):
    asked = []

    def unreachable_once(request):
        asked.append(request.kind)
        return reply(status="failed", code="unreachable") if len(asked) == 1 else reply()

    def without_reference(request):
        said = unreachable_once(request)
        return said if said.status == "ok" else type(said)(PROTOCOL, "failed", "unreachable", "", {})

    assert released(run, cedar=without_reference) == SITES
    assert asked == ["make", "make", "send"]


def test_a_package_that_did_not_arrive_is_asked_for_again_three_times_in_all(run):
    asked = []

    def fails(times):
        def answer(request):
            asked.append(request.kind)
            failing = request.kind == "send" and asked.count("send") <= times
            return reply(status="refused", code="federation-failed") if failing else reply()

        return answer

    assert released(run, cedar=fails(2)) == SITES
    assert asked == ["make", "send", "send", "send"]
    asked.clear()
    assert released(run, cedar=fails(99)) == SITES - {"cedar"}
    assert asked == ["make", "send", "send", "send"]


def test_what_a_site_refuses_for_good_is_not_asked_again(run):
    asked = []

    def refuses(request):
        asked.append(request.kind)
        return reply(status="refused", code="release-refused") if request.kind == "send" else reply()

    assert released(run, cedar=refuses) == SITES - {"cedar"}
    assert asked == ["make", "send"]


class Grid:
    """Flower's grid, as far as the channel uses it: replies that come at given times of a clock of its own.

    A node whose reply never comes is not connected, and so is one within its span of `gone`: Flower gives up a message
    that it had then.
    """

    def __init__(self, times, gone=()):
        self.times, self.gone, self.now, self.pushed = times, dict(gone), 0.0, []

    def push_messages(self, messages):
        self.pushed += [(node, self.now) for node in messages]
        return [f"{node}:{len(self.pushed)}" for node in messages]

    def pull_messages(self, identifiers):
        nodes = {name: int(name.split(":")[0]) for name in identifiers}
        lost = [Said(name, error=True) for name, node in nodes.items() if self.is_gone(node)]
        return lost + [Said(name) for name, node in nodes.items() if self.times[node] <= self.now]

    def get_node_ids(self):
        return [node for node, time in self.times.items() if time < 1e9 and not self.is_gone(node)]

    def is_gone(self, node):
        start, end = self.gone.get(node, (1e9, 1e9))
        return start <= self.now < end


class Said:
    def __init__(self, name, error=False):
        self.metadata = type("Metadata", (), {"reply_to_message_id": name})
        self.content, self.error = None, type("Error", (), {"code": 5, "reason": ""}) if error else None

    def has_error(self):
        return self.error is not None


@pytest.fixture
def channel_over(monkeypatch):
    """Make the channel over a grid and its clock; sites' node ids are their places in the alphabet."""

    def make(grid, sites, members):
        monkeypatch.setattr(flower_channel.time, "monotonic", lambda: grid.now)
        monkeypatch.setattr(flower_channel.time, "sleep", lambda seconds: setattr(grid, "now", grid.now + seconds))
        monkeypatch.setattr(flower_channel, "Message", lambda content, dst_node_id, **_: dst_node_id)
        monkeypatch.setattr(flower_channel, "decode_reply", lambda content: reply())
        return FlowerChannel(grid, lambda: {site: node for node, site in enumerate(sorted(sites))}, members, WORK_S)

    return make


def exchange(channel_over, times, waited, members=lambda now: set("abc"), gone=()):
    """One exchange of sites a, b, c, who answer at `times`, with a deadline of 300 s: who came, and when it ended."""
    return exchange_over(channel_over, Grid(dict(enumerate(times)), gone), waited, members)


def exchange_over(channel_over, grid, waited, members=lambda now: set("abc")):
    channel = channel_over(grid, "abc", lambda: members(grid.now))
    request = Request(PROTOCOL, "0" * 64, "hello", "", 0, {})
    told = {}

    def take(site, said):
        assert site not in told, "an answer is handed on once"
        told[site] = said
        return True

    channel.exchange(dict.fromkeys("abc", request), 300.0, take, waited)
    return {site for site, said in told.items() if said.status == "ok"}, grid.now


@pytest.mark.parametrize(
    ("times", "waited", "end", "came"),
    [
        ((10.0, 20.0, 1e9), {"a", "b", "c"}, 300.0, {"a", "b"}),  # the deadline, once
        ((10.0, 20.0, 1e9), {"a", "b"}, 30.0, {"a", "b"}),
        ((10.0, 20.0, 28.0), {"a", "b"}, 28.0, {"a", "b", "c"}),  # it answers in time, and counts
        ((10.0, 20.0, 5.0), {"a", "b"}, 20.0, {"a", "b", "c"}),
        ((10.0, 1e9, 1e9), {"a", "b"}, 300.0, {"a"}),
    ],
)
def test_the_channel_gives_the_others_half_as_long_again(channel_over, times, waited, end, came):
    assert exchange(channel_over, times, waited) == (came, pytest.approx(end, abs=1.0))


@pytest.mark.parametrize(
    ("times", "waited", "end", "came"),
    [
        ((10.0, 20.0, 1e9), {"a", "b", "c"}, 40.0, {"a", "b"}),  # as soon as the members file says so
        ((10.0, 20.0, 100.0), {"a", "b", "c"}, 40.0, {"a", "b"}),
        ((10.0, 50.0, 1e9), {"a", "b", "c"}, 50.0, {"a", "b"}),  # the others are waited for as before
        ((10.0, 1e9, 1e9), {"a", "c"}, 60.0, {"a"}),  # and have half as long again
        ((10.0, 20.0, 30.0), {"a", "b", "c"}, 30.0, {"a", "b", "c"}),
    ],
)
def test_a_site_that_is_revoked_while_the_others_work_is_not_waited_for(channel_over, times, waited, end, came):
    found = exchange(channel_over, times, waited, lambda now: set("ab" if now >= 40.0 else "abc"))
    assert found == (came, pytest.approx(end, abs=1.0))


@pytest.mark.parametrize(
    ("times", "waited", "end", "came"),
    [
        ((10.0, 20.0, 2000.0), {"a", "b", "c"}, 2000.0, {"a", "b", "c"}),  # long after the deadline
        ((900.0, 1e9, 2000.0), {"a", "b", "c"}, 2000.0, {"a", "c"}),  # though another is silent
        ((10.0, 20.0, 9e8), {"a", "b", "c"}, WORK_S, {"a", "b"}),  # the limit of work
        ((10.0, 20.0, 2000.0), {"a", "b"}, 30.0, {"a", "b"}),  # one that was silent before holds up nobody
        ((400.0, 20.0, 600.0), {"a", "b"}, 400.0, {"a", "b"}),
    ],
)
def test_a_site_that_works_is_waited_for_beyond_the_deadline(channel_over, times, waited, end, came):
    assert exchange(channel_over, times, waited) == (came, pytest.approx(end, abs=1.0))


@pytest.mark.parametrize(
    ("gone", "times", "end", "came", "asked"),
    [
        ((54.0, 130.0), (10.0, 20.0, 150.0), 150.0, {"a", "b", "c"}, 2),
        ((54.0, 1e9), (10.0, 20.0, 150.0), 300.0, {"a", "b"}, 1),  # silent: until the deadline
        ((1000.0, 1070.0), (10.0, 20.0, 2000.0), 2000.0, {"a", "b", "c"}, 2),
        ((1000.0, 1e9), (10.0, 20.0, 2000.0), 1120.0, {"a", "b"}, 1),  # at work, then gone: time for a restart
    ],
)
def test_a_site_that_falls_out_is_asked_the_same_when_it_is_back(channel_over, gone, times, end, came, asked):
    grid = Grid(dict(enumerate(times)), {2: gone})
    assert exchange_over(channel_over, grid, {"a", "b", "c"}) == (came, pytest.approx(end, abs=1.0))
    assert [node for node, _ in grid.pushed].count(2) == asked


def test_a_site_whose_task_dies_again_and_again_is_asked_three_times(channel_over):
    class Dying(Grid):
        def pull_messages(self, identifiers):
            return [Said(name, error=name.startswith("2:")) for name in identifiers]

    grid = Dying({0: 0.0, 1: 0.0, 2: 0.0})
    assert exchange_over(channel_over, grid, {"a", "b", "c"})[0] == {"a", "b"}
    assert [node for node, _ in grid.pushed].count(2) == 3
    assert grid.now < 10.0


@pytest.mark.parametrize("quorum", [2, 3])
def test_a_round_goes_on_without_a_revoked_site_if_the_quorum_holds(channel_over, consortium, tmp_path, quorum):
    class Revoking(Grid):
        def pull_messages(self, identifiers):
            if self.now >= 40.0 and "south" in consortium.registry.in_force():
                revoke(consortium.home, "south")
            return super().pull_messages(identifiers)

        def get_node_ids(self):
            return [0, 1, 2]

    grid = Revoking({0: 10.0, 1: 20.0, 2: 1e9})  # east, north, south
    inner = channel_over(grid, consortium.plan.sites, consortium.registry.in_force)
    run = study_run(tmp_path, consortium.plan, MembersChannel(inner, consortium.registry))
    run.accepted = set(consortium.plan.sites)
    if quorum == 3:
        with pytest.raises(FederationError, match=r"2 of the 3 sites of the quorum answered .* south: revoked"):
            run.ask("hello", {}, quorum=quorum)
    else:
        replies = run.ask("hello", {}, quorum=quorum)
        assert {site: said.code or said.status for site, said in replies.items()} == {
            "east": "ok",
            "north": "ok",
            "south": "revoked",
        }
    assert grid.now == pytest.approx(40.0, abs=1.0)
    assert run.plan.federation.round_deadline_s > 60.0


def test_broken_answers_are_borne_three_times_and_longer_of_a_site_that_has_begun(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    losses, broken, silent = Losses(60.0), lost("bad-reply"), lost("silent")
    assert not losses.beyond({"a": broken, "b": broken, "c": silent}, {"b"})
    assert not losses.beyond({"a": broken, "b": broken, "c": silent}, {"b"})
    assert set(losses.beyond({"a": broken, "b": broken, "c": silent}, {"b"})) == {"a"}
    now[0] = 61.0
    assert set(losses.beyond({"b": broken, "c": silent}, {"b"})) == {"b"}
    assert not losses.beyond({"b": Reply(PROTOCOL, "pending", "", "", {})}, {"b"})
    assert not losses.beyond({"b": broken}, {"b"}), "what works again starts anew"
