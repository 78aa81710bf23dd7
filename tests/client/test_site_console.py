"""What the console of a site says in every state, once each, and how the node tells that its coordinator is away."""

from __future__ import annotations

import json
import ssl
import time
from types import SimpleNamespace

import httpx
import pytest
from support.homes import make_home
from support.studies import PLAN, POLICY

from sfumato_client.cli import live
from sfumato_client.egress.flower_hooks import Contact
from sfumato_client.egress.progress import forget_failures
from sfumato_client.site.home import ADDRESS_FILE
from sfumato_client.site.overview import overview
from sfumato_client.site.telling import beat_line, leaves, question_line, told
from sfumato_common import progress
from sfumato_common.files import write_json
from sfumato_common.locks import exclusive
from sfumato_common.progress import Lines
from sfumato_common.protocol.messages import RequestKind
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan


@pytest.fixture(scope="module")
def plan():
    return parse(PLAN, Plan, "plan")


@pytest.fixture
def home(tmp_path, plan):
    home = make_home(tmp_path / "alder", "alder", plan, POLICY, 40)
    write_json(home.root / ADDRESS_FILE, {"coordinator": "c.example:8443"})
    return home


def seen(home, state="joined", contact=None, reason="", doing="working", **work):
    """The lines of a home whose node is in `state`, and what is `doing` with the last question, `work`."""
    now = time.time()
    write_json(home.node_file, {"state": state, "reason": reason, "since": now - 60})
    write_json(home.root / "contact.json", {"heard": now} if contact is None else contact)
    if work:
        common = {"study": "tiny", "rounds": 1, "round": 1, "stage": "", "step": None, "steps": None, "code": ""}
        times = {"began": now - 5, "sign": now, "ended": None, "reference": "r", "process": 1, "machine": "elsewhere"}
        write_json(home.work_file, {**common, **times, **work, "state": doing})
    with exclusive(home.root, "the site"):
        return told(overview(home.root))


def test_connected_or_not_since_when_to_whom_and_why(home):
    assert "connected to coordinator c.example:8443 since " in seen(home)["connection"]
    away = {"failed": time.time() - 30, "why": "nothing listens there; check the address"}
    for state in ("connecting", "joined"):
        lines = seen(home, state, away)
        assert lines["connection"].startswith("not connected to coordinator c.example:8443 since ")
        assert lines["connection"].endswith(": nothing listens there; check the address")
        assert lines["next 0"].startswith("next: nothing listens there; check the address; this site tries again")
    assert seen(home, "connecting", {})["connection"].endswith("no answer yet")
    briefly = {"heard": time.time() - 4, "failed": time.time() - 2, "why": "nothing listens there"}
    assert seen(home, "joined", briefly)["connection"].startswith("connected"), "one request that failed is no news"
    silent = seen(home, "joined", {"heard": time.time() - 600})
    assert silent["connection"].startswith("not connected") and "ask its people" in silent["next 0"]
    assert "the certificate has ended" in seen(home, "failed", reason="the certificate has ended")["connection"]
    assert "nothing is lost" in seen(home, "stopped")["connection"]


@pytest.mark.parametrize("kind", RequestKind.__args__)
def test_what_is_asked_says_what_leaves_and_when(home, plan, kind):
    stage = "gan" if kind in ("stage", "sum-values") else ""
    line = seen(home, kind=kind, stage=stage, plan_hash=plan.digest)["work"]
    assert line.startswith(f"asked: {stage or kind}; leaves when done")
    touches = kind in ("stage", "sum-values", "utility")
    assert ("charged before" in line) is touches
    assert ("no patient is looked at" in line) is (kind == "hello" or (kind.startswith("sum-") and not touches))


def test_a_release_that_is_asked_for_again_and_again_is_told_once(home, plan):
    told_once = {
        seen(home, kind="send", plan_hash=plan.digest, doing=state, ended=ended)["work"]
        for state, ended in (("working", None), ("goes on", time.time()), ("working", None))
    }
    assert len(told_once) == 1
    view = {"work": {"kind": "send", "stage": "", "rounds": 1, "state": "goes on"}, "waits": ["tiny/declared"]}
    waiting = {question_line({**view, "work": {**view["work"], "state": state}}) for state in ("goes on", "working")}
    assert waiting == {"asked: send; nothing more leaves until a steward has decided"}


def test_weights_without_privacy_are_not_called_noised():
    view = {"studies": [{"plan_hash": "bare", "private": False}], "work": {"kind": "stage", "plan_hash": "bare"}}
    assert "WITHOUT differential privacy" in leaves(view)


def test_epsilon_is_told_before_after_and_of_the_budget_with_delta_and_unit(home, plan):
    lines = seen(home)
    assert lines["paid"].startswith("a patient has paid epsilon 0.000 of ")
    assert "at delta 1e-05 (unit patient, add/remove), over all studies" in lines["paid"]
    (view,) = overview(home.root)["studies"]
    assert view["epsilon_before"] == 0.0 and view["epsilon_after"] > 1.0
    cost = lines[f"cost {plan.digest}"]
    assert cost == f"study tiny takes a patient from epsilon 0.000 to {view['epsilon_after']:.3f} at most"


def test_lines_tell_news_once_and_durations_are_none_and_then_a_sign_of_life():
    clock, said = [0.0], []
    lines = Lines(said.append, 600.0, lambda: clock[0])

    def tell(facts, beat_s=None):
        lines.tell(facts, lambda: f"alive at {clock[0]:g}", beat_s)

    tell({"connection": "connected", "next 0": "next: silent for 40 s", "next 1": "next: ask"})
    clock[0] = 599.0
    tell({"connection": "connected", "next 0": "next: silent for 12 min", "next 1": "next: ask"})
    tell({"connection": "connected", "next 0": "next: ask"})
    assert said == ["connected", "next: silent for 40 s", "next: ask"], "a sentence that moves up is no news"
    clock[0] = 600.0
    tell({"connection": "connected", "next 0": "next: ask"})
    tell({"connection": "connected"})
    clock[0] = 719.0
    tell({"connection": "connected"}, beat_s=60.0)
    clock[0] = 720.0
    tell({"connection": "connected"}, beat_s=60.0)  # the second in a row comes later
    tell({"connection": "not connected"})
    tell({"connection": "connected"})
    assert said[3:] == ["alive at 600", "alive at 720", "not connected", "connected"]


def test_a_sign_of_life_has_the_clocks(home, plan):
    seen(home, kind="stage", stage="gan", plan_hash=plan.digest, step=1, steps=2, rounds=2)
    with exclusive(home.root, "the site"):
        line = beat_line(overview(home.root))
    assert line.startswith("connected, coordinator heard ") and "gan, round 1 of 2, step 1 of 2, since " in line


@pytest.fixture
def contact(tmp_path):
    clock = [100.0]
    found = Contact(tmp_path, "c.example:8443", lambda: clock[0])

    def call(answer, method="/flwr.proto.Fleet/PullMessages", at=None):
        clock[0] = at or clock[0] + 1.0

        def goes(context):
            if isinstance(answer, Exception):
                raise answer
            return httpx.Response(answer, request=context.request)

        request = httpx.Request("POST", "https://c.example:8443/v1")
        context = SimpleNamespace(request=request, rpc_method=method)
        if isinstance(answer, Exception):
            with pytest.raises(type(answer)):
                found.intercept(context, goes)
        else:
            assert found.intercept(context, goes).status_code == answer
        return json.loads((tmp_path / "contact.json").read_text())

    return call


def test_the_node_keeps_why_its_coordinator_is_not_reached_until_it_answers(contact):
    refused = httpx.ConnectError("[Errno 111] Connection refused")
    first = contact(refused)
    assert first == {"failed": 101.0, "why": first["why"]} and "nothing listens there" in first["why"]
    assert contact(refused) == first, "since the first of them"
    assert contact(200) == {"heard": 103.0}
    assert contact(refused) == {"heard": 103.0, "failed": 104.0, "why": first["why"]}
    wrong = httpx.ConnectError("handshake")
    wrong.__cause__ = ssl.SSLCertVerificationError("certificate verify failed: Hostname mismatch")
    assert "not made out to that name" in contact(wrong)["why"]
    assert "it was started anew" in contact(401)["why"], "a site that was joined is not told of revocation at once"
    assert "does not work at the moment" in contact(503)["why"]
    assert contact(403)["heard"] > 104.0, "a run that ended is no lost coordinator"
    assert "does not know this site's key" in contact(403, "/flwr.proto.Fleet/ActivateNode")["why"]
    assert "refuses this site's certificate" in contact(401, "/flwr.proto.Fleet/ActivateNode")["why"]


def test_a_new_run_does_not_begin_with_the_failures_of_the_last(tmp_path):
    write_json(tmp_path / "contact.json", {"heard": 1.0, "failed": 2.0, "why": "nothing listens there"})
    forget_failures(tmp_path)
    assert json.loads((tmp_path / "contact.json").read_text()) == {"heard": 1.0}
    forget_failures(tmp_path / "absent")


def test_the_console_speaks_at_once_and_a_home_that_cannot_be_looked_at_ends_no_site(home, capsys, monkeypatch):
    monkeypatch.setattr(progress, "_TICK_SECONDS", 0.05)
    with exclusive(home.root, "the site"), live.live_site(home.root):
        assert "connecting to coordinator c.example:8443" in capsys.readouterr().out
        write_json(home.node_file, {"state": "connecting", "reason": "", "since": time.time()})
        (home.root / "policy.yaml").write_text("site: [")
        time.sleep(0.5)
    assert "the site's files cannot be looked at" in capsys.readouterr().out


def test_a_log_of_json_stays_one(home, caplog, monkeypatch, capsys):
    monkeypatch.setenv("SFUMATO_LOG", "json")
    with caplog.at_level("INFO"), live.live_site(home.root):
        pass
    assert capsys.readouterr().out == ""
    assert "connecting to coordinator" in caplog.records[0].getMessage()
    assert caplog.records[0].fields == {"event": "console"}
