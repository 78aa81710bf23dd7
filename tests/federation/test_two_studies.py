"""Two studies at once in one site's home: one ledger, whose charges add up, and neither loses a round to the other."""

import copy
import itertools
import multiprocessing
import os
import signal
import threading
import time

import pytest
from support.commands import speaker
from support.enrolment import enrol_site
from support.federations import Federation, make_federation
from support.studies import PLAN, POLICY

from sfumato_client.ledger.storage import connect, transaction
from sfumato_client.site.admission import admit
from sfumato_client.site.handler import Site
from sfumato_client.site.home import SiteHome
from sfumato_common.accounting.accountant import epsilon
from sfumato_common.crypto.identity import load_identity
from sfumato_common.errors import BudgetExceeded, ConfigError, PolicyRefusal
from sfumato_common.locks import exclusive, is_held
from sfumato_common.protocol.messages import PROTOCOL, Request
from sfumato_common.strict import parse
from sfumato_common.study.costs import study_events
from sfumato_common.study.plan import Plan
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.coordinator.study import run_study
from sfumato_server.simulate.home import make_coordinator, take_package

ONE = {**copy.deepcopy(PLAN), "sites": {"alder": {"nominal_patients": 40}}}
ONE["federation"] = {**ONE["federation"], "quorum": 1}
TWO = {**ONE, "study": "second"}
ROOMY = {**POLICY, "budget": {"epsilon": 200.0, "delta": 1.0e-5}}
LINK = "second"


def make_both(root, policy=ROOMY, second=TWO):
    """Homes of two coordinators, and of the one site that both know; the second's plan is pinned by the site."""
    first = make_federation(root / "one", ONE, policy)
    plan = parse(second, Plan, "plan")
    coordinator = make_coordinator(root / "two", plan)
    home = SiteHome(first.home("alder").root, LINK)
    enrol_site(coordinator.root, load_identity(home.identity))
    home.pin(plan)
    return homes_of(root)


def homes_of(root) -> tuple[Federation, Federation]:
    """The two studies over homes that `make_both` made."""
    site_root = root / "one" / "sites" / "alder"
    made = []
    for name, link in (("one/coordinator", ""), ("two", LINK)):
        coordinator = CoordinatorHome(root / name)
        plan = coordinator.plan()

        def take(data, plan, coordinator=coordinator):
            take_package(coordinator, plan, "alder", data)

        made.append(Federation(root, plan, coordinator, {"alder": Site(SiteHome(site_root, link), take)}))
    return made[0], made[1]


def run_one(root, which):
    """In a process of its own."""
    federation = homes_of(root)[which]
    end = run_study(federation.coordinator, federation, seed=which, classifier_steps=5)
    os._exit(0 if end == "completed" else 1)


def start(root, which):
    process = multiprocessing.get_context("spawn").Process(target=run_one, args=(root, which), daemon=True)
    process.start()
    return process


def end(*processes, seconds=240):
    for process in processes:
        process.join(seconds)
        if process.is_alive():
            process.kill()
    return [process.exitcode for process in processes]


def charged(home, plan, cohort):
    with home.open_ledger() as ledger:
        ledger.verify()
        return ledger.events(cohort, plan.digest)


def test_both_run_at_the_same_moment_and_their_charges_add_up(tmp_path):
    first, second = make_both(tmp_path)
    assert end(start(tmp_path, 0), start(tmp_path, 1)) == [0, 0]
    home = first.home("alder")
    for federation in (first, second):
        for cohort in ("train", "holdout"):
            assert charged(home, federation.plan, cohort) == study_events(federation.plan, cohort)
        words = [set(item["sites"].values()) for item in federation.result()["exchanges"]]
        assert all(word in ({"ok"}, {"pending"}) for word in words), "no exchange was refused as busy, or lost"
    with home.open_ledger() as ledger:
        assert ledger.unsettled_charges() == []
        both = study_events(first.plan, "train") + study_events(second.plan, "train")
        assert sorted(map(repr, ledger.events("train"))) == sorted(map(repr, both))
        hashes = [entry.plan_hash for entry in ledger.entries()]
    turns = sum(one != two for one, two in itertools.pairwise(hashes))
    assert turns > 1, "the two were at work side by side"


@pytest.mark.slow
def test_a_kill_of_one_does_not_disturb_the_other(tmp_path):
    first, second = make_both(tmp_path)
    one, two = start(tmp_path, 0), start(tmp_path, 1)
    until = time.monotonic() + 120
    while not charged(second.home("alder"), second.plan, "train") and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(two.pid, signal.SIGKILL)
    assert end(one, two) == [0, -signal.SIGKILL]
    assert charged(first.home("alder"), first.plan, "train") == study_events(first.plan, "train")
    assert end(start(tmp_path, 1)) == [0], "and it goes on where it was"
    assert charged(second.home("alder"), second.plan, "train") == study_events(second.plan, "train")


def ask(federation, stage="spectral", number=1, plan=None):
    request = Request(PROTOCOL, (plan or federation.plan).digest, "stage", stage, number, {})
    return federation.sites["alder"].handle(request)


def tight():
    """A policy whose budget has room for either study, for one beside the first round of the other, not for both."""
    whole = study_events(parse(ONE, Plan, "plan"), "train")
    beside, both = epsilon([*whole[:1], *whole], 1e-5), epsilon([*whole, *whole], 1e-5)
    assert beside < both
    return {**POLICY, "budget": {"epsilon": (beside + both) / 2, "delta": 1.0e-5}}


def test_what_the_first_still_has_to_charge_is_not_given_to_the_second(tmp_path):
    first, second = make_both(tmp_path, tight())
    home, policy = first.home("alder"), first.home("alder").policy()
    with home.open_ledger() as ledger:
        admit(second.plan, policy, ledger)  # nothing has begun: either would fit alone
    assert ask(first).status == "ok"
    with home.open_ledger() as ledger:
        assert [plan.study for plan in ledger.begun()] == ["tiny"]
        with pytest.raises(BudgetExceeded):
            admit(second.plan, policy, ledger)
    # beside what was charged so far it would fit; beside what the first will charge it does not
    refused = ask(second)
    assert (refused.status, refused.code) == ("refused", "budget-exceeded")
    assert charged(home, second.plan, "train") == []
    assert run_study(first.coordinator, first, seed=1, classifier_steps=5) == "completed"
    assert charged(home, first.plan, "train") == study_events(first.plan, "train")
    with home.open_ledger() as ledger:
        assert ledger.begun() == [], "its release is out"


def test_the_refusal_is_not_one_of_what_was_charged_alone(tmp_path):
    first, second = make_both(tmp_path, tight())
    assert ask(first).status == "ok"
    assert ask(second).code == "budget-exceeded"
    first.home("alder").leave("tiny")  # what it would have charged is free again
    assert ask(second).status == "ok"
    assert ask(first).code == "policy-refused"


def test_a_study_that_the_site_left_may_be_accepted_again_and_no_other_of_its_name(tmp_path):
    first, _ = make_both(tmp_path)
    home = first.home("alder")
    home.leave("tiny")
    with pytest.raises(ConfigError, match="no study 'tiny' is accepted"):
        home.leave("tiny")
    other = parse({**ONE, "utility": None}, Plan, "plan")
    with pytest.raises(PolicyRefusal, match="another plan named 'tiny'"):
        home.pin(other)
    home.pin(first.plan)
    assert ask(first).status == "ok"


def test_a_held_ledger_is_waited_for(tmp_path):
    first, _ = make_both(tmp_path)
    file, held, let_go = first.home("alder").ledger_file, threading.Event(), threading.Event()
    first.home("alder").open_ledger().close()

    def hold():
        connection = connect(file)
        with transaction(connection):
            held.set()
            let_go.wait(30)
        connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    threading.Timer(2.0, let_go.set).start()
    began = time.monotonic()
    reply = ask(first)
    holder.join()
    assert reply.status == "ok"
    assert time.monotonic() - began > 1.5


def test_a_coordinator_asks_under_its_own_plan_alone(tmp_path):
    first, second = make_both(tmp_path)
    reply = ask(second, plan=first.plan)
    assert (reply.status, reply.code) == ("refused", "policy-refused")
    assert charged(first.home("alder"), first.plan, "train") == []


def test_one_name_is_one_plan_whoever_proposes_it(tmp_path):
    first, _ = make_both(tmp_path)
    with pytest.raises(PolicyRefusal, match="another plan named 'tiny'"):
        SiteHome(first.home("alder").root, LINK).pin(first.plan)


def test_each_has_a_node_of_its_own_and_one_home_runs_both(tmp_path):
    first, second = make_both(tmp_path)
    one, two = first.home("alder"), second.home("alder")
    with exclusive(one.link, "one"), exclusive(two.link, "two"):
        assert is_held(one.link)
        assert is_held(two.link)
    apart = ("link", "grant", "plans", "worker_secret", "work_file", "node_file", "logs", "steward_folder")
    assert all(getattr(one, name) != getattr(two, name) for name in apart)
    shared = ("identity", "store", "ledger_file", "grouping_file", "outbox")
    assert all(getattr(one, name) == getattr(two, name) for name in shared)


def test_a_word_that_is_no_name_is_refused(tmp_path, monkeypatch, capsys):
    say = speaker(monkeypatch, capsys)
    make_both(tmp_path)
    home = tmp_path / "one" / "sites" / "alder"
    code, line, _ = say("sfumato-site", "run", "--home", home, "--study", "../other")
    assert (code, "--study" in line) == (2, True)
    code, line, _ = say("sfumato-site", "run", "--home", home, "--study", "third")
    assert (code, "not enrolled" in line) == (2, True)
