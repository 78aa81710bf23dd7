"""What a site's own people see, the watch over its work, and the one thing of it that policy may let out: the step."""

from __future__ import annotations

import json
import threading
import time
from types import SimpleNamespace

import httpx
import pytest
from rich.console import Console
from support.homes import make_home
from support.studies import PLAN, POLICY
from typer.testing import CliRunner

from sfumato_client.cli.main import app
from sfumato_client.cli.status import render
from sfumato_client.egress.flower_hooks import Contact
from sfumato_client.egress.guard import pending_reply
from sfumato_client.egress.progress import PROGRESS_FILE, hide_step, show_step, shown_step
from sfumato_client.ledger.head import head_path
from sfumato_client.site import watch as watching
from sfumato_client.site.handler import Site
from sfumato_client.site.home import ADDRESS_FILE
from sfumato_client.site.overview import overview
from sfumato_client.site.stewards import add_steward, remove_steward
from sfumato_client.site.watch import HUNG_CODE, HUNG_SECONDS, Quiet, Watch
from sfumato_common.accounting import accountant
from sfumato_common.errors import LedgerError
from sfumato_common.files import write_json
from sfumato_common.locks import exclusive
from sfumato_common.protocol.messages import PROTOCOL, Request
from sfumato_common.strict import parse
from sfumato_common.study.costs import stage_events
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy
from sfumato_common.study.shards import release_images


@pytest.fixture(scope="module")
def plan():
    return parse(PLAN, Plan, "plan")


@pytest.fixture
def home(tmp_path, plan):
    return make_home(tmp_path / "alder", "alder", plan, POLICY, 40)


def question(plan, kind="stage", stage="gan", number=1, plan_hash=None):
    return Request(PROTOCOL, plan_hash or plan.digest, kind, stage if kind == "stage" else "", number, {})


def joined(home, heard=0.0):
    write_json(home.node_file, {"state": "joined", "reason": "", "since": time.time() - 60})
    write_json(home.root / "contact.json", {"heard": time.time() - heard})
    write_json(home.root / ADDRESS_FILE, {"coordinator": "c:1"})
    return exclusive(home.root, "the site")


def in_words(view):
    console = Console(width=300)
    with console.capture() as said:
        console.print(render(view))
    return said.get()


class Recorder:
    draws = 0

    def __call__(self):
        return self.draws


def policy(**changes):
    return parse({**POLICY, "site": "alder", **changes}, Policy, "policy")


def test_the_first_hour_is_told_step_by_step(home, plan):
    view = overview(home.root)
    assert view["state"] == "not running"
    assert "'enrolment-request.json' to the coordinator" in view["next"][0]
    write_json(home.root / ADDRESS_FILE, {"coordinator": "c:1"})
    assert overview(home.root)["next"] == ["'sfumato-site run' joins the federation"]
    (home.root / "plans" / f"{plan.digest}.json").unlink()
    assert "no plan is accepted here" in overview(home.root)["next"][0]
    (home.store / "store.json").unlink()
    assert "'sfumato-site ingest'" in overview(home.root)["next"][0]
    home.ledger_file.unlink()
    with pytest.raises(LedgerError, match="is gone"):
        overview(home.root)
    head_path(home.ledger_file).unlink()
    assert overview(home.root)["epsilon"] == 0.0
    assert not home.ledger_file.exists(), "a look begins no ledger"


def test_a_release_that_nobody_can_let_go_is_told_before_it_waits(tmp_path, plan):
    rules = {**POLICY, "release": {**POLICY["release"], "review": {"by": "steward", "two_persons": True}}}
    home = make_home(tmp_path / "alder", "alder", plan, rules, 40)
    write_json(home.root / ADDRESS_FILE, {"coordinator": "c:1"})
    said = lambda: " ".join(overview(home.root)["next"])  # noqa: E731
    assert "asks for 2 stewards more than there are" in said()
    add_steward(home, "ada", b"a long one of ada's")
    assert "asks for a steward more than there are: 'sfumato-site steward add'" in said()
    add_steward(home, "grace", b"a long one of grace's", "ada", b"a long one of ada's")
    assert "steward" not in said()
    (home.plans / f"{plan.digest}.json").unlink()
    remove_steward(home, "grace", "ada", b"a long one of ada's")
    assert "steward" not in said(), "nothing is to be released"


def test_the_node_is_joined_silent_killed_or_failed(home):
    with joined(home):
        assert overview(home.root)["state"] == "joined"
        joined(home, heard=600)
        view = overview(home.root)
        assert view["state"] == "no answer"
        assert "the coordinator is silent" in view["next"][0]
        work = {"kind": "send", "study": "tiny", "state": "answered", "code": "", "reference": "", "process": 1}
        write_json(home.work_file, {**work, "stage": "", "round": 0, "rounds": 1, "began": 0.0, "ended": 1.0})
        assert "'tiny' has this site's release" in overview(home.root)["next"][0], "it is not needed any more"
    assert overview(home.root)["state"] == "killed", "nobody holds the home"
    write_json(home.node_file, {"state": "failed", "reason": "the certificate has ended", "since": time.time()})
    assert overview(home.root)["next"][0] == "it ended: the certificate has ended"


def test_questions_are_shown_from_their_coming_to_their_answer(home, plan):
    site = Site(home, lambda data, plan: None)
    with joined(home):
        reply = site.handle(question(plan, "hello", number=0))
        assert reply.status == "ok"
        view = overview(home.root)
        assert (view["work"]["kind"], view["work"]["state"]) == ("hello", "answered")
        site.handle(question(plan, "hello", number=0, plan_hash="0" * 64))
        assert "a plan that is not accepted here (hash 000000000000)" in overview(home.root)["next"][0]
        refused = site.handle(question(plan, number=1))
        view = overview(home.root)
        assert view["work"]["reference"] == refused.reference
        assert (home.steward_folder / "errors" / f"{refused.reference}.txt").exists()
        assert refused.reference in view["next"][0]
        assert "refused" in in_words(view)


def test_work_is_shown_with_its_step_and_the_end_of_its_process(home, plan, monkeypatch):
    monkeypatch.setattr(watching, "_TICK_SECONDS", 0.01)
    recorder, watch = Recorder(), Watch(home, question(plan))
    watch.accept(plan, policy())
    with joined(home), watch.work(recorder):
        recorder.draws = 1
        assert wait_until(lambda: json.loads(home.work_file.read_text())["step"] == 1)
        view = overview(home.root)
        assert (view["work"]["step"], view["work"]["steps"]) == (1, plan.stage("gan").local_steps)
        assert "step 1 of 2" in in_words(view)
        assert view["next"] == ["nothing: the site is at work"]
        assert not (home.root / PROGRESS_FILE).exists(), "the policy shows no progress"
        work = json.loads(home.work_file.read_text())
        write_json(home.work_file, {**work, "sign": time.time() - 300})
    value = json.loads(home.work_file.read_text())
    write_json(home.work_file, {**value, "process": 2**22 + 1})
    with joined(home):
        assert overview(home.root)["work"]["state"] == "killed"
    write_json(home.work_file, {**value, "sign": time.time() - 300})
    with joined(home):
        assert "no sign of work for 5 min" in overview(home.root)["next"][0]


def wait_until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return False


def test_the_step_is_told_where_policy_shows_it_on_the_grid_of_answers_alone(home, plan, monkeypatch):
    monkeypatch.setattr(watching, "_TICK_SECONDS", 0.01)
    recorder, told = Recorder(), []
    start = time.monotonic()
    watch = Watch(home, question(plan))
    watch.accept(plan, policy(progress="shown", answer_interval_s=0.5))
    monkeypatch.setattr(
        watching, "show_step", lambda root, step, steps: told.append((time.monotonic() - start, step, steps))
    )
    with watch.work(recorder):
        recorder.draws = 1
        assert wait_until(lambda: len(told) >= 3)
    assert [round(at / 0.5) for at, _, _ in told] == [1, 2, 3]
    assert all(at % 0.5 < 0.2 for at, _, _ in told)
    assert {rest for _, *rest in map(tuple, told) for rest in [tuple(rest)]} == {(1, 2)}


def test_nothing_is_told_where_policy_withholds_it_and_nothing_after_the_answer(home, plan, monkeypatch):
    monkeypatch.setattr(watching, "_TICK_SECONDS", 0.01)
    show_step(home.root, 1, 2)
    watch = Watch(home, question(plan, "make", number=0))
    assert shown_step(home.root) is None, "what a killed process left is taken away"
    watch.accept(plan, policy())
    with watch.work(lambda: 3, release_images(plan, "alder")):
        assert wait_until(lambda: json.loads(home.work_file.read_text())["step"] == 3)
        assert shown_step(home.root) is None
        assert "3 of 28 images" in in_words(overview(home.root)), "its own people see it"
    watch.accept(plan, policy(progress="shown"))
    with watch.work(lambda: 3, release_images(plan, "alder")):
        assert wait_until(lambda: shown_step(home.root) == b"3/28")
    watch = Watch(home, question(plan))
    watch.accept(plan, policy(progress="shown"))
    with watch.work(Recorder()):
        assert wait_until(lambda: shown_step(home.root) == b"0/2")
    assert shown_step(home.root) == b"0/2", "that the work ended is told by the answer alone, on its grid"
    watch.end(pending_reply())
    assert shown_step(home.root) is None


@pytest.mark.parametrize("left", [b"", b"3", b"1/2\n", b"doe/1", b"1/2/3", b"1234567/2", b"\xff/1"])
def test_nothing_but_two_numbers_leaves(tmp_path, left):
    (tmp_path / PROGRESS_FILE).write_bytes(left)
    assert shown_step(tmp_path) is None
    hide_step(tmp_path)
    hide_step(tmp_path)


def test_the_node_tells_the_step_and_keeps_when_it_was_answered(tmp_path):
    clock = [100.0]
    contact = Contact(tmp_path, "c:1", lambda: clock[0])

    def call():
        request = httpx.Request("POST", "https://c:1/v1/fleet/send-node-heartbeat")
        context = SimpleNamespace(request=request, rpc_method="/flwr.proto.Fleet/SendNodeHeartbeat")
        assert contact.intercept(context, lambda context: httpx.Response(200)).status_code == 200
        return request.headers.get("sfumato-progress")

    assert call() is None
    show_step(tmp_path, 5, 3)
    clock[0] = 102.0
    assert call() == "3/3"
    assert json.loads((tmp_path / "contact.json").read_text()) == {"heard": 100.0}, "not at every call"
    clock[0] = 110.0
    call()
    assert json.loads((tmp_path / "contact.json").read_text()) == {"heard": 110.0}
    clock[0] = 120.0
    (tmp_path / "contact.json").unlink()
    (tmp_path / "contact.json").mkdir()
    assert call() == "3/3", "a disk that takes nothing costs no connection"


def test_slow_work_is_not_hung_and_hung_work_is_not_slow():
    slow = Quiet(HUNG_SECONDS)
    # one part in 200 of a processor: a machine under forty other loads
    assert not any(slow.look(0, second * 0.005, 1.0) for second in range(10_000))
    stepping = Quiet(HUNG_SECONDS)
    assert not any(stepping.look(second // 600, 0.0, 1.0) for second in range(10_000)), "a step in ten minutes"
    hung = Quiet(HUNG_SECONDS)
    # the watch's own time
    looks = [hung.look(0, second * 0.0006, 1.0) for second in range(1, 1000)]
    assert looks.index(True) == HUNG_SECONDS - 1
    asleep = Quiet(HUNG_SECONDS)
    assert not asleep.look(0, 0.0, 36_000.0), "the machine was suspended"


def test_work_that_hangs_ends_its_process_and_says_so(home, plan, monkeypatch):
    monkeypatch.setattr(watching, "_TICK_SECONDS", 0.01)
    monkeypatch.setattr(watching, "HUNG_SECONDS", 0.3)
    ended, over = [], threading.Event()

    def give_up(code):
        ended.append(code)
        over.set()

    watch = Watch(home, question(plan), give_up)
    watch.accept(plan, policy(progress="shown"))
    with joined(home), watch.work(Recorder()):
        assert over.wait(10)  # a lock that nobody opens: no step, no processor time
        assert overview(home.root)["work"]["state"] == "hung"
        assert "the work hung and was ended" in overview(home.root)["next"][0]
        assert shown_step(home.root) is None
    assert ended == [HUNG_CODE]


def test_a_full_disk_does_not_stop_the_work(home, plan, monkeypatch):
    def full(*_):
        raise OSError(28, "no space left")

    monkeypatch.setattr(watching, "_TICK_SECONDS", 0.01)
    monkeypatch.setattr(watching, "write_json", full)
    monkeypatch.setattr(watching, "show_step", full)
    watch = Watch(home, question(plan))
    watch.accept(plan, policy(progress="shown", answer_interval_s=0.01))
    with watch.work(Recorder()):
        time.sleep(0.2)
        assert [thread for thread in threading.enumerate() if thread.name == "watch"]


def test_the_command_prints_once_and_as_json(home):
    arguments = ["status", "--home", str(home.root)]
    shown = CliRunner().invoke(app, [*arguments, "--once"])
    assert shown.exit_code == 0
    assert "site alder" in shown.output and "next:" in shown.output
    assert json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output).keys() == overview(home.root).keys()


def test_paid_rounds_and_refused_parts_are_shown(home, plan):
    from sfumato_client.ledger.charged import Terms
    from sfumato_client.release.folder import release_folder
    from sfumato_client.site.noise import site_noise

    terms = Terms.of(plan, "spectral", 1, "train")
    with (
        home.open_ledger() as ledger,
        pytest.raises(RuntimeError),
        ledger.charged(terms, [plan.stage("spectral").event], site_noise(home.policy(), "x")),
    ):
        raise RuntimeError
    release_folder(home.releases, plan).keep_refusal("formal", "failed")
    view = overview(home.root)
    assert view["studies"][0]["stages"][0] == {"stage": "spectral", "rounds": 1, "done": 1}
    assert view["epsilon"] > 0 and view["unsettled"] == 1
    assert "release: formal refused (failed)" in in_words(view)


def test_a_second_look_computes_no_epsilon_again_and_no_charge_rests_on_what_is_kept(home, plan, monkeypatch):
    event = stage_events(plan, plan.stages[0])[0]
    said = {"study": plan.study, "plan_hash": plan.digest, "purpose": "spectral", "round": 1, "cohort": "train"}
    with home.open_ledger() as ledger:
        ledger.reserve(**said, event=event)
    view = overview(home.root)
    assert 0.0 < view["epsilon"] < view["studies"][0]["epsilon_after"]

    def unable(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(accountant, "_epsilon", unable)
    again = overview(home.root)
    assert (again["epsilon"], again["studies"]) == (view["epsilon"], view["studies"])
    with home.open_ledger() as ledger, pytest.raises(AssertionError, match="again"):
        ledger.reserve(**{**said, "round": 2}, event=event)
