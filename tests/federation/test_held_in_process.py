"""The stages of a study in which arrays travel once, and a site that lost what it kept is sent all of it again."""

from __future__ import annotations

import copy
import shutil

import pytest
from support.federations import make_federation
from support.plans import dp_sgd
from support.studies import PLAN

from sfumato_common.accounting.events import Declared
from sfumato_common.study.costs import study_events
from sfumato_server.coordinator.study import run_study
from sfumato_server.rounds import card

SPECTRAL, _, FLOW = PLAN["stages"]
VALUES = {
    **copy.deepcopy(PLAN),
    "stages": [{**SPECTRAL, "by_site": True}, {**FLOW, **dp_sgd(rounds=3)}],
    "release": [{"model": "flow", "images": 8}],
    "utility": None,
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A study in which cedar's folder of received arrays vanishes before the flow's third round."""
    federation = make_federation(tmp_path_factory.mktemp("held"), VALUES)
    answer = federation.answer

    def losing(site, request):
        if (site, request.stage, request.round) == ("cedar", "flow", 3) and not missing(federation):
            shutil.rmtree(federation.home("cedar").received, ignore_errors=True)
        return answer(site, request)

    federation.answer = losing
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(card, "epsilon", lambda *_: 1.0)  # has tests of its own, and takes longer than all of this
        outcome = run_study(federation.coordinator, federation, seed=1, release=False)
    assert outcome == "completed", federation.result()["reason"]
    return federation


def missing(federation):
    return [(site, request) for site, request, reply in federation.sent if reply.status == "missing"]


def asked(federation, site, stage, number):
    return [
        request for name, request, _ in federation.sent if (name, request.stage, request.round) == (site, stage, number)
    ]


def test_what_a_stage_brought_comes_by_digest_from_then_on(ended):
    for site in ended.sites:
        (first,) = asked(ended, site, "flow", 1)
        assert "spectral/factor" in first.arrays and not first.held
        (second,) = asked(ended, site, "flow", 2)
        fixed = {name for name in first.arrays if name.startswith("spectral/")}
        assert fixed and fixed == {name for name in second.held if name.startswith("spectral/")}
    assert len({asked(ended, site, "flow", 1)[0].arrays["spectral/factor"].tobytes() for site in ended.sites}) == 3


def test_a_site_that_lost_it_is_asked_again_with_all_of_it_in_the_same_exchange(ended):
    ((site, request),) = missing(ended)
    assert (site, request.stage, request.round) == ("cedar", "flow", 3) and request.held
    held_back, whole = asked(ended, "cedar", "flow", 3)
    assert held_back is request and not whole.held and set(whole.arrays) == set(request.arrays) | set(request.held)
    (exchange,) = [item for item in ended.result()["exchanges"] if item["stage"] == "flow" and item["round"] == 3]
    assert set(exchange["sites"].values()) == {"ok"}


def test_nothing_is_charged_for_it(ended):
    for site in ended.sites:
        with ended.home(site).open_ledger() as ledger:
            train = [event for event in ledger.events("train", ended.plan.digest) if not isinstance(event, Declared)]
            assert train == study_events(ended.plan, "train")


def test_the_bytes_that_are_told_of_are_those_that_went(ended):
    went = {}
    for _, request, _ in ended.sent:
        key = request.stage or request.kind, request.round
        went[key] = went.get(key, 0) + sum(value.nbytes for value in request.arrays.values())
    told = {(item["stage"], item["round"]): item["bytes_down"] for item in ended.result()["exchanges"]}
    for number in (1, 2, 3):
        assert told["flow", number] == went["flow", number]
    assert told["flow", 2] < told["flow", 1] / 1.5
