"""Replayed, changed, crashed and reordered rounds: the same question gets the same bytes, and nothing is paid twice."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.hospital import environment, size_on_the_wire

from sfumato_client.ledger import Ledger
from sfumato_client.site.turns import MOST_TIMES


def moved(request, amount=1e-6):
    """The same request with one weight moved, within every reach."""
    name = next(name for name in sorted(request.arrays) if name.startswith(("discriminator", "flow", "head")))
    value = request.arrays[name].copy()
    value.flat[0] += amount
    return dataclasses.replace(request, arrays={**request.arrays, name: value})


@pytest.mark.parametrize("key", [("spectral", 1), ("gan", 1), ("gan", 2), ("gan", 3), ("flow", 1), "utility"])
def test_the_same_request_gets_the_same_bytes_and_costs_nothing(finished, key):
    before = finished.charges()
    first, second = finished.ask(finished.asked[key]), finished.ask(finished.asked[key])
    assert first.status == second.status == "ok", finished.reason(first)
    assert first.arrays and size_on_the_wire(first) == size_on_the_wire(second)
    assert all(np.array_equal(first.arrays[name], second.arrays[name]) for name in first.arrays)
    assert finished.charges() == before


@pytest.mark.parametrize("key", [("gan", 3), ("flow", 1), "utility"])
def test_the_same_round_with_other_arrays_is_refused(finished, key):
    finished.refuses(moved(finished.asked[key]), "ledger-refused", "was charged before: it may not run again")


def test_an_answered_round_with_other_arrays_is_refused_after_newer_ones(finished):
    request = moved(finished.asked["gan", 1])
    finished.refuses(request, "verification-failed", "is older than one that came before")


def test_a_round_that_crashed_after_its_charge_stays_paid_and_is_not_run_again(midway, monkeypatch):
    request, before = midway.asked["gan", 2], midway.charges()
    monkeypatch.setattr("sfumato_client.training.gan.train_discriminator", lambda job: 1 / 0)
    crashed = midway.ask(request)
    assert (crashed.status, crashed.code) == ("failed", "failed")
    assert "ZeroDivisionError" in midway.reason(crashed)
    assert [item[:2] for item in midway.charges()] == [*(item[:2] for item in before), ("gan", 2)]
    monkeypatch.undo()
    midway.refuses(request, "ledger-refused", "was charged before: it may not run again")


def kill(midway, monkeypatch, request):
    """What a kill leaves: the work ends in its middle, and no handler of errors runs."""

    def killed(job):
        raise KeyboardInterrupt

    monkeypatch.setattr("sfumato_client.training.gan.train_discriminator", killed)
    with pytest.raises(KeyboardInterrupt):
        midway.ask(request)
    monkeypatch.undo()
    environment(monkeypatch, midway)


def test_a_round_that_was_killed_after_its_charge_is_done_again_under_it(midway, monkeypatch):
    request, before = midway.asked["gan", 2], midway.charges()
    kill(midway, monkeypatch, request)
    midway.refuses(moved(request), "ledger-refused", "was charged before: it may not run again")
    reply = midway.ask(request)
    assert reply.status == "ok", midway.reason(reply)
    assert [item[:2] for item in midway.charges()[len(before) :]] == [("gan", 2)]
    midway.refuses(moved(request), "ledger-refused", "was charged before: it may not run again")
    with midway.home.open_ledger() as ledger:
        assert len(ledger.settled_results()) == len(ledger.entries()), "and nothing stays open"


def test_work_that_is_killed_again_and_again_is_given_up(midway, monkeypatch):
    request = midway.asked["gan", 2]
    for _ in range(MOST_TIMES):
        kill(midway, monkeypatch, request)
    midway.refuses(request, "ledger-refused", "was charged before: it may not run again")
    midway.refuses(request, "ledger-refused", "was charged before: it may not run again")


def test_an_answer_that_left_is_not_made_again_though_its_charge_stayed_open(midway, monkeypatch):
    request = midway.asked["gan", 2]
    monkeypatch.setattr(Ledger, "settle", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        midway.ask(request)
    monkeypatch.undo()
    environment(monkeypatch, midway)
    assert midway.ask(request).status == "ok", "the kept bytes"
    for path in midway.home.outbox.glob("*-gan-2-*"):
        path.unlink()
    midway.refuses(request, "ledger-refused", "was charged before: it may not run again")


def test_a_round_that_was_missed_is_not_begun_after_a_newer_one(midway):
    # honest: round 2 did not reach this site; hostile: it is kept back, to go to and fro beyond the plan's reach
    assert midway.ask(midway.asked["gan", 3]).status == "ok"
    midway.refuses(midway.asked["gan", 2], "verification-failed", "is older than one that came before")


def test_an_answer_whose_bytes_were_lost_is_not_computed_again(finished):
    for path in finished.home.outbox.glob("*-gan-2-*"):
        path.unlink()
    finished.refuses(finished.asked["gan", 2], "verification-failed", "is older than one that came before")
    for path in finished.home.outbox.glob("*-gan-3-*"):
        path.unlink()
    finished.refuses(finished.asked["gan", 3], "ledger-refused", "was charged before: it may not run again")


def test_a_kept_answer_that_was_altered_on_disk_does_not_leave(finished):
    (path,) = finished.home.outbox.glob("*-gan-3-*")
    path.write_bytes((finished.home.outbox / next(finished.home.outbox.glob("*-spectral-1-*")).name).read_bytes())
    finished.refuses(finished.asked["gan", 3], "egress-refused", "other arrays than the plan declares")


def test_the_same_question_in_several_processes_is_worked_on_once_and_gets_one_answer(midway):
    # Flower starts a second process for a message whose first lost its token while it worked
    request, before = midway.asked["gan", 2], midway.charges()
    with ThreadPoolExecutor(3) as pool:
        replies = list(pool.map(midway.ask, 3 * [request]))
    assert [reply.status for reply in replies] == 3 * ["ok"], [midway.reason(reply) for reply in replies]
    assert all(
        np.array_equal(replies[0].arrays[name], reply.arrays[name]) for reply in replies for name in reply.arrays
    )
    assert [item[:2] for item in midway.charges()[len(before) :]] == [("gan", 2)]


def test_several_versions_of_a_round_at_once_are_answered_once(midway):
    request, before = midway.asked["gan", 2], midway.charges()
    versions = [request, *(moved(request, amount * 1e-6) for amount in (1, 2, 3))]
    with ThreadPoolExecutor(len(versions)) as pool:
        replies = list(pool.map(midway.ask, versions))
    assert sorted(reply.status for reply in replies) == ["ok", "refused", "refused", "refused"]
    assert {reply.code for reply in replies} == {"", "ledger-refused"}
    assert [item[:2] for item in midway.charges()[len(before) :]] == [("gan", 2)]
