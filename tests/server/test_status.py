"""How a study stands: what the coordinator's files say of it, in words, as a page, as JSON and as metrics."""

from __future__ import annotations

import http.client
import json
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.plans import dp_sgd
from support.processes import wait_for
from typer.testing import CliRunner

from sfumato_common import errors, progress
from sfumato_common.accounting.accountant import epsilon
from sfumato_common.command_line import duration_text
from sfumato_common.errors import BusyError, FederationError
from sfumato_common.files import write_json
from sfumato_common.locks import exclusive, is_held
from sfumato_common.study.costs import study_events
from sfumato_common.study.lineage import Lineage
from sfumato_common.study.shards import shards_at
from sfumato_common.supervise import free_port
from sfumato_server.cli.main import app
from sfumato_server.coordinator import watching
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.coordinator.page import PageServer
from sfumato_server.coordinator.watching import watched
from sfumato_server.enrol import load_authority, revoke
from sfumato_server.intake.admission import package_path
from sfumato_server.publish.progress import FILE as PROGRESS
from sfumato_server.publish.progress import LoggedProgress, read_progress
from sfumato_server.publish.versions import note_version
from sfumato_server.status.board import NOT_ASKED, StatusBoard, previous_board
from sfumato_server.status.contacts import Contacts, read_contacts
from sfumato_server.status.live import page_text
from sfumato_server.status.metrics import metrics_text
from sfumato_server.status.overview import PAGE, overview
from sfumato_server.status.phase import keep_phase, read_phase
from sfumato_server.status.view import headline, live_status, render, site_words

REPLIES = {"sites": {"east": "ok"}, "bytes_down": 10, "bytes_up": 5}


@pytest.fixture
def home(founded, tmp_path, make_plan):
    """A coordinator's home with three enrolled sites and a plan of DP-SGD, in which nothing runs."""
    root = founded.copied(tmp_path / "home").home
    stages = [*make_plan().model_dump()["stages"], dp_sgd(kind="gan", rounds=2, width=8, generator_steps=2, fakes=8)]
    plan = make_plan(privacy={"epsilon": 500.0, "delta": 1e-4}, stages=stages)
    write_json(root / "plan.json", plan.model_dump(mode="json"))
    return CoordinatorHome(root)


def seen(home):
    return overview(home.root, home.plan())


def in_words(home):
    from rich.console import Console

    console = Console(width=300)
    with console.capture() as said:
        console.print(render(seen(home)))
    return said.get()


def asked(board, *sites, stage="gan", number=1):
    board.begin(stage, number, 2)
    for site in board._plan.sites:
        board.site(site, *(("working",) if site in sites else ("lost", NOT_ASKED)))


def test_before_a_study_it_says_how_to_begin(home):
    view = seen(home)
    assert (view["phase"], view["exchanges"], view["left_s"]) == ("not started", [], None)
    assert {site["state"] for site in view["sites"].values()} == {"absent"}
    assert "'sfumato coordinator run' begins the study" in view["next"][0]
    (home.root / "sites.json").unlink()
    assert "enrol east, north, south" in seen(home)["next"][0]


def test_phases_tell_a_run_that_lives_from_one_that_was_killed(home):
    with exclusive(home.root, "it"), keep_phase(home.root) as phase:
        assert read_phase(home.root)["phase"] == "running"
        assert is_held(home.root)
        phase("publishing")
        assert seen(home)["next"] == ["nothing: the published set is being written"]
    assert read_phase(home.root)["phase"] == "killed", "it ended without a word"
    assert "its process was killed" in seen(home)["next"][0]
    with pytest.raises(FederationError), keep_phase(home.root):
        raise FederationError("below the quorum; run again")
    assert seen(home)["next"][0] == "it stopped: below the quorum; run again"
    with pytest.raises(KeyboardInterrupt), keep_phase(home.root):
        raise KeyboardInterrupt
    assert read_phase(home.root)["phase"] == "interrupted"
    with keep_phase(home.root) as phase:
        phase("published")
    assert "give the folder" in seen(home)["next"][0]


def test_a_look_at_the_lock_does_not_keep_anybody_out(home):
    assert not is_held(home.root)
    with exclusive(home.root, "it"):
        assert is_held(home.root)
        with pytest.raises(BusyError), exclusive(home.root, "another"):
            pass
    with exclusive(home.root, "it"):
        pass


def test_sites_work_are_silent_and_come_back(home, monkeypatch):
    board, contacts = StatusBoard(home.status_file, home.plan()), Contacts(home.contacts_file)
    with exclusive(home.root, "it"), keep_phase(home.root):
        assert "waiting for east, north, south to connect" in seen(home)["next"][0]
        for site in ("east", "north"):
            contacts.heard(site, None)
        contacts.write()
        said = seen(home)["next"][0]
        assert "waiting for south" in said and "2 of 3 sites are here, the quorum is 2" in said
        asked(board, "east", "north")
        view = seen(home)
        assert [view["sites"][site]["state"] for site in ("east", "north", "south")] == ["working", "working", "silent"]
        assert any("south is silent" in line for line in view["next"])
        # ten minutes later only east was heard again
        now = time.time() + 600
        monkeypatch.setattr(time, "time", lambda: now)
        contacts.heard("east", None)
        contacts.write()
        view = seen(home)
        assert [view["sites"][site]["state"] for site in ("east", "north")] == ["working", "silent"]
        assert "north is silent for 10 min" in " ".join(view["next"])
        assert "silent for 10 min" in in_words(home) and "silent for 10 min" in page_text(home.root, home.plan())
        contacts.heard("north", None)
        contacts.write()
        assert seen(home)["sites"]["north"]["state"] == "working"
    assert {site["state"] for site in seen(home)["sites"].values()} <= {"not known", "silent"}, "nobody is there to ask"
    assert "killed in gan, round 1 of 2" in in_words(home)


def test_only_the_step_of_the_round_under_way_is_taken(home, monkeypatch):
    plan = home.plan()
    board, contacts = StatusBoard(home.status_file, plan), Contacts(home.contacts_file)
    steps = plan.stage("gan").local_steps
    with exclusive(home.root, "it"), keep_phase(home.root):
        asked(board, *plan.sites)
        for site, told in zip(plan.sites, (b"1/%d" % steps, b"1/77", b"<b>1</b>/2"), strict=True):
            contacts.heard(site, told)
        contacts.write()
        view = seen(home)
        assert [site["step"] for site in view["sites"].values()] == [1, None, None]
        assert f"step 1 of {steps}" in site_words(view["sites"]["east"], view)
        now = time.time() + 1000
        monkeypatch.setattr(time, "time", lambda: now)
        contacts.heard("east", b"1/%d" % steps)
        contacts.write()
        assert "east has made no step for 17 min" in " ".join(seen(home)["next"])
        asked(board, *plan.sites, stage="spectral")
        assert seen(home)["sites"]["east"]["step"] is None, "another stage has other steps"
    assert read_contacts(home.root / "absent.json") == {}


def test_time_left_is_by_the_kind_of_exchange_and_the_slowest_step(home, monkeypatch):
    plan, now = home.plan(), time.time()
    board, contacts = StatusBoard(home.status_file, plan), Contacts(home.contacts_file)
    steps = plan.stage("gan").local_steps
    with exclusive(home.root, "it"), keep_phase(home.root):
        assert seen(home)["left_s"] is None

        def at(seconds):
            monkeypatch.setattr(time, "time", lambda: now + seconds)

        asked(board, *plan.sites, stage="spectral")
        at(10)
        board.end(REPLIES)
        board.finish_round("spectral", 1)
        asked(board, *plan.sites)
        assert seen(home)["left_s"] == 40, "two rounds and the release's two exchanges, as long as the one so far"
        at(60)
        contacts.heard("east", b"1/%d" % steps)
        contacts.write()
        assert steps == 2 and seen(home)["left_s"] == 50 + 100 + 2 * 55
        at(100)
        board.end(REPLIES)
        board.finish_round("gan", 1)
        asked(board, *plan.sites, number=2)
        at(101)
        assert seen(home)["left_s"] == 89 + 2 * 50
        at(191)
        assert seen(home)["left_s"] is None, "it takes longer than the round before, and no site tells its step"


def test_refusals_say_what_to_do(home):
    board = StatusBoard(home.status_file, home.plan())
    with exclusive(home.root, "it"), keep_phase(home.root):
        asked(board, "east", "north", "south", stage="hello")
        board.site("east", "refused", "policy-refused")
        board.site("north", "lost", "bad-reply")
        revoke(home.root, "south")
        asked(board, "north", stage="spectral")
        board.site("north", "lost", "bad-reply")
        view = seen(home)
    assert {name: site["state"] for name, site in view["sites"].items()} == {
        "east": "refused",
        "north": "failed",
        "south": "revoked",
    }
    said = "\n".join(view["next"])
    assert "east refuses: it has not accepted this plan" in said
    assert "north: its answer cannot be one of this plan" in said
    assert "south: it was revoked" in said


def test_a_code_of_a_site_is_one_that_waiting_ends_or_one_that_people_have_to_mend(home):
    """Every code that a site may send, and every one that the coordinator gives: none is forgotten."""
    passing = {"", "failed", "busy", "no-room", "federation-failed", "silent", "unreachable", NOT_ASKED}
    sent = {kind.wire_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "wire_code")}
    board = StatusBoard(home.status_file, home.plan())
    for code in sent | passing | {"bad-reply", "bundle-refused", "revoked"}:
        board.site("east", "lost", code)
        assert bool(board.wanting) == (code not in passing), code


def test_what_a_site_paid_is_counted_when_it_is_asked_and_once(home):
    plan = home.plan()
    board = StatusBoard(home.status_file, plan)
    asked(board, "east", "north", stage="spectral")
    spectral = epsilon(study_events(plan, "train")[:1], plan.privacy.delta)
    assert board.now()["epsilon_by_site"] == {"east": spectral, "north": spectral, "south": 0.0}
    board.end(REPLIES)
    for _ in range(3):  # a release is asked for again and again, and made once
        asked(board, "east", stage="make")
        board.end(REPLIES)
    assert board.now()["epsilon_by_site"]["east"] == spectral, "a sampled release costs nothing"
    assert board.now()["epsilon_spent"] == spectral
    # a round that was asked for was paid, though the run ended in it and another board begins
    asked(board, "south", number=1)
    home.status_file.rename(previous_board(home.status_file))
    again = StatusBoard(home.status_file, plan)
    again.resume("spectral", 1)
    asked(again, "south", number=1)
    gan = epsilon(study_events(plan, "train")[1:2], plan.privacy.delta)
    view = seen(home)
    assert {name: site["epsilon"] for name, site in view["sites"].items()} == {
        "east": spectral,
        "north": spectral,
        "south": gan,
    }
    assert [(row["stage"], row["done"], row["state"]) for row in view["stages"]] == [
        ("join", 1, "done"),
        ("spectral", 1, "done"),
        ("gan", 0, "now"),
        ("release", 0, "to come"),
        ("publish", 0, "to come"),
    ]


def package(home, site):
    for part, shard in shards_at(home.plan(), site):
        path = package_path(home.root, site, part, shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"admitted")


def test_a_site_whose_release_is_here_is_not_called_refused_for_a_figure_that_it_withholds(home):
    """As it was: 'completed' beside 'refused, refused, refused', when every policy withheld the figure."""
    board = StatusBoard(home.status_file, home.plan())
    package(home, "east")
    with exclusive(home.root, "it"), keep_phase(home.root):
        asked(board, "east", "north", stage="utility")
        for site in ("east", "north"):
            board.site(site, "refused", "policy-refused")
        board.finish("completed")
        view = seen(home)
    assert {name: site["state"] for name, site in view["sites"].items()} == {
        "east": "done",
        "north": "refused",
        "south": "silent",
    }
    assert site_words(view["sites"]["east"], view).startswith("done (its release is here; utility: policy-refused)")
    assert not [line for line in view["next"] if line.startswith("east")]
    assert [line for line in view["next"] if line.startswith("north refuses")]


def test_who_is_here_before_it_begins_and_when_it_does(home, monkeypatch):
    board, contacts = StatusBoard(home.status_file, home.plan()), Contacts(home.contacts_file)
    deadline = home.plan().federation.join_deadline_s
    with exclusive(home.root, "it"), keep_phase(home.root):
        now = time.time() + 10
        monkeypatch.setattr(time, "time", lambda: now)
        said = [headline(seen(home))]
        for site in ("east", "north", "south"):
            contacts.heard(site, None)
            contacts.write()
            said.append(headline(seen(home)))
    here = "join: {} of 3 sites are here, the quorum is 2: {}"
    left = duration_text(deadline - 10)
    assert said == [
        here.format(0, f"2 more within {left}, or it stops"),
        here.format(1, f"1 more within {left}, or it stops"),
        here.format(2, f"starting in {left}, or when all are here"),
        here.format(3, "starting"),
    ]
    assert board.now()["stage"] == "join"


def test_the_page_is_new_while_something_else_is_waited_for_and_says_how_it_ended(home, monkeypatch):
    """As it was: 'absent' for as long as the start took, and a running study that had failed."""
    monkeypatch.setattr(progress, "_TICK_SECONDS", 0.02)
    monkeypatch.setattr(watching, "_PAGE_SECONDS", 0.05)
    calls, page = [], home.root / PAGE

    def watch():
        calls.append(1)
        raise RuntimeError("a terminal that is gone")

    def publish(phase):
        phase("publishing")
        contacts = Contacts(home.contacts_file)
        contacts.heard("east", None)
        contacts.write()
        assert wait_for(lambda: page.exists() and "connected" in page.read_text(), 10)
        write_json(home.root / PROGRESS, {"what": "checking packages", "done": 3, "total": 8, "left_s": 12.0})
        told = "publishing: checking packages, 3 of 8 images, about 12 s left"
        assert wait_for(lambda: told in page.read_text(), 10)
        assert 'http-equiv="refresh"' in page.read_text()
        raise FederationError("nothing is left to publish")

    whole = exclusive(home.root, "it"), watched(home, watch), keep_phase(home.root)
    with pytest.raises(FederationError), whole[0], whole[1], whole[2] as phase:
        publish(phase)
    assert len(calls) > 2
    text = page.read_text()
    assert "it stopped: nothing is left to publish" in text and 'http-equiv="refresh"' not in text
    assert 'data-going="no"' in text


def test_publishing_says_how_far_it_is(tmp_path):
    progress = LoggedProgress("writing the set", 4, tmp_path)
    assert read_progress(tmp_path) is None
    progress(3)
    assert read_progress(tmp_path)["done"] == 3
    progress(1)
    assert read_progress(tmp_path) == {"what": "writing the set", "done": 4, "total": 4, "left_s": 0.0}, (
        "the end is kept"
    )


def test_where_there_is_no_terminal_lines_tell_what_happens(home, capsys):
    board, contacts = StatusBoard(home.status_file, home.plan()), Contacts(home.contacts_file)
    with exclusive(home.root, "it"), keep_phase(home.root), live_status(lambda: seen(home)) as tell:
        seen_first = seen(home)["next"]
        for _ in range(3):
            tell()
        contacts.heard("east", None)
        contacts.write()
        tell()
        asked(board, "east", stage="spectral")
        tell()
        board.end(REPLIES)
        tell()
        for _ in range(3):  # a release is asked for again and again
            asked(board, "east", stage="send")
            board.end(REPLIES)
            tell()
    said = [line.split("  ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert said[:2] == ["study chest: join", f"next: {seen_first[0]}"]
    assert "east: connected" in said and "study chest: spectral, round 1 of 2" in said
    assert [line for line in said if line.startswith("spectral 1/2: ") and "east ok" in line]
    assert len(said) == len(set(said)), "each once"
    assert len([line for line in said if line.startswith("send 1/2: ")]) == 1


def test_a_round_that_failed_is_not_done_and_without_an_earlier_board_all_have_paid(home):
    plan = home.plan()
    board = StatusBoard(home.status_file, plan)
    asked(board, "east")
    board.end(REPLIES)
    assert board.now()["done"] == {"spectral": 0, "gan": 0}
    board.finish_round("gan", 1)
    assert board.now()["done"] == {"spectral": 0, "gan": 1}
    home.status_file.unlink()
    board = StatusBoard(home.status_file, plan)
    board.resume("gan", 1)
    assert len(set(board.now()["epsilon_by_site"].values())) == 1
    assert board.now()["epsilon_spent"] > 0


def test_one_that_sent_its_release_is_done_though_others_are_asked_on(home):
    board = StatusBoard(home.status_file, home.plan())
    asked(board, "east", "north", stage="send")
    board.site("east", "done")
    asked(board, "north", stage="send")
    assert (board.now()["sites"]["east"], board.now()["sites"]["north"]) == ("done", "working")


def test_whose_release_is_here_is_not_waited_for_until_it_says_so_itself(home):
    """As it was: 'its stewards have the release' for some seconds after its last part was admitted."""
    board = StatusBoard(home.status_file, home.plan())
    with exclusive(home.root, "it"), keep_phase(home.root):
        asked(board, "east", "north", stage="send")
        for site in ("east", "north"):
            board.site(site, "review")
        package(home, "east")
        view = seen(home)
    assert (view["sites"]["east"]["state"], view["sites"]["north"]["state"]) == ("done", "review")
    assert [line.split(":")[0].split(" ")[0] for line in view["next"] if "stewards" in line] == ["north"]


def test_the_command_prints_once_and_as_json(home):
    StatusBoard(home.status_file, home.plan())
    arguments = ["study", "status", "--home", str(home.root)]
    shown = CliRunner().invoke(app, [*arguments, "--once"])
    assert shown.exit_code == 0
    assert "study chest" in shown.output and "next:" in shown.output
    value = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output)
    assert value.keys() == seen(home).keys()


def test_versions_and_who_withdrew_are_listed_by_the_command_and_on_the_page(home):
    assert (seen(home)["versions"], seen(home)["versions_fault"]) == ([], "")
    assert "published versions" not in page_text(home.root, home.plan())
    authority, file = load_authority(home.root), home.versions_file
    stone = {"site": "west", "what": "site-withdrew", "since": "2026-01-02", "images": "removed"}
    values = {"version": 2, "previous": "1" * 64, "keep": {"east": "3" * 64}, "tombstones": [stone]}
    second = home.plan().model_copy(update={"lineage": Lineage.model_validate(values)})
    note_version(file, authority, home.plan(), "1" * 64)
    note_version(file, authority, second, "2" * 64)
    said = "since 2026-01-02: west: site-withdrew, its images were removed"
    page = page_text(home.root, home.plan())
    arguments = ["study", "status-file", "--home", str(home.root)]
    for text in (in_words(home), page, CliRunner().invoke(app, arguments).output):
        assert "version 1 of" in text and "superseded by version 2" in text and "version 2 of" in text
        assert text.count(said) == 1, "who withdrew is listed under the version that is without"
    value = json.loads(CliRunner().invoke(app, ["study", "status", "--home", str(home.root), "--json"]).output)
    assert [one["tombstones"] for one in value["versions"]] == [[], [{**stone, "why": "not told"}]]
    # somebody else's list is not shown as the coordinator's
    file.write_bytes(file.read_bytes().replace(b"site-withdrew", b"site-left", 1))
    assert seen(home)["versions"] == [] and "versions.json" in seen(home)["versions_fault"]
    assert said not in in_words(home) and "versions.json: the status file" in in_words(home)


@pytest.mark.parametrize("spent", [1.5, None])
def test_metrics_are_the_overviews_numbers(home, spent):
    board = StatusBoard(home.status_file, home.plan())
    asked(board, "east")
    view = {**seen(home), "epsilon_spent": spent}
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(metrics_text(view).decode())
        for sample in family.samples
    }
    assert found["sfumato_epsilon_spent",] == (spent or float("inf"))
    assert found["sfumato_site_state", "east", "working"] == 1
    assert found["sfumato_stage_rounds", "gan"] == 2
    assert not [name for name, *_ in found if name in ("sfumato_site_step", "sfumato_site_heard_timestamp_seconds")]
    assert not [name for name, *_ in found if not name.startswith("sfumato_")], "nothing of the process"


def test_the_page_and_the_metrics_are_served_on_loopback_and_nothing_else_is(home):
    (home.root / "sheets").mkdir()
    (home.root / "sheets" / "gan-0001.png").write_bytes(b"png")
    port = free_port()

    def get(path, host="localhost"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", path, headers={"host": host})
        answer = connection.getresponse()
        return answer.status, answer.read()

    with PageServer(home, port):
        assert get("/")[1].startswith(b"<!doctype html>")
        assert b"sfumato_study_info" in get("/metrics", f"127.0.0.1:{port}")[1]
        assert get("/sheets/gan-0001.png") == (200, b"png")
        for path in ("/plan.json", "/sheets/../plan.json", "/sheets/%2e%2e/plan.json", "//etc/passwd", "/sheets/"):
            assert get(path)[0] == 404, path
        assert get("/", "evil.example")[0] == 403
        with pytest.raises(BusyError):
            PageServer(home, port)
    PageServer(home, port).__enter__().__exit__()
