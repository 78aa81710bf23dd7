"""The demo with real processes: SuperLink, SuperNodes, TLS, intake. Linux only: it looks at /proc."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.processes import (
    ENVIRONMENT,
    PROGRAMS,
    SMALL_PLAN,
    SMALL_POLICY,
    command_of,
    demo_command,
    running,
    status,
    tree,
    wait_for,
    write_configs,
)

from sfumato_client.site.home import SiteHome
from sfumato_common.locks import in_turn
from sfumato_server.publish import verify_dataset

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
    pytest.mark.timeout(1200),
]


def as_at_a_terminal():
    # a suite that a shell runs in the background is born deaf to Ctrl-C, and so would its children be
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(command, log: Path):
    return subprocess.Popen(
        command, env=ENVIRONMENT, stdout=log.open("wb"), stderr=subprocess.STDOUT, preexec_fn=as_at_a_terminal
    )


def stop(process):
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def test_the_demo_publishes_a_set_that_verifies_and_a_second_demo_waits_its_turn(tmp_path):
    configs, out = write_configs(tmp_path / "configs"), tmp_path / "out"
    demo = start(demo_command(out, configs), tmp_path / "log")
    try:
        assert wait_for(lambda: (out / "work").exists(), 60), (tmp_path / "log").read_text()
        second = subprocess.run(
            demo_command(out, configs), env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
        )
        assert second.returncode == 5
        assert "already running" in second.stderr
        assert "Traceback" not in second.stderr
        code = demo.wait(300)
    finally:
        stop(demo)
    said = (tmp_path / "log").read_text()
    assert code == 0, said
    assert verify_dataset(out / "published", None)
    run = json.loads((out / "run.json").read_text())
    assert [item["stage"] for item in run["exchanges"]] == ["hello", "spectral", "gan", "gan", "make", "send"]
    assert run["versions"]["flwr"] == "1.41.0"
    assert (out / "published" / "report.html").stat().st_size > 10_000
    # each party has a home of its own, and what the coordinator has holds no image of any site's store
    homes = {path.name for path in (out / "work" / "sites").iterdir()}
    assert homes == {"alder", "birch", "cedar"}
    assert not list((out / "work" / "coordinator").rglob("pixels-*"))
    assert not list((out / "work" / "coordinator" / "flwr").rglob("*.py"))
    assert not [path for site in homes for path in (out / "work" / "sites" / site).rglob("*.py")]
    # no cleaning needed before the next one
    (out / "published" / "labels.csv").write_text("altered")
    altered = subprocess.run(
        [Path(sys.executable).parent / "sfumato", "dataset", "verify", out / "published"],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert altered.returncode == 6
    assert "labels.csv" in altered.stderr


@pytest.mark.slow
def test_ctrl_c_stops_every_child(tmp_path):
    out = tmp_path / "out"
    demo = start(demo_command(out, write_configs(tmp_path / "configs")), tmp_path / "log")
    try:
        assert wait_for(lambda: status(out).get("stage") in ("hello", "spectral"), 300), (tmp_path / "log").read_text()
        family = tree(demo.pid)
        assert len(family) > 8
        demo.send_signal(signal.SIGINT)
        assert demo.wait(40) == 130
    finally:
        stop(demo)
    assert wait_for(lambda: not running(family), 15), [command_of(pid) for pid in running(family)]
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_ctrl_c_during_set_up_stops_every_child(tmp_path):
    configs = write_configs(tmp_path / "configs")
    demo = start(demo_command(tmp_path / "out", configs, patients=3000), tmp_path / "log")
    try:
        drawing = lambda: [pid for pid in tree(demo.pid) if "sfumato_common.phantom" in command_of(pid)]  # noqa: E731
        assert wait_for(drawing, 60), (tmp_path / "log").read_text()
        family = tree(demo.pid)
        demo.send_signal(signal.SIGINT)  # to the demo alone: its children hear nothing from the terminal
        assert demo.wait(15) == 130
    finally:
        stop(demo)
    assert wait_for(lambda: not running(family), 10), [command_of(pid) for pid in running(family)]
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.slow
def test_the_run_finishes_without_a_site_that_is_killed_in_a_round(tmp_path):
    out = tmp_path / "out"
    demo = start(demo_command(out, write_configs(tmp_path / "configs")), tmp_path / "log")
    try:
        assert wait_for(lambda: status(out).get("stage") == "gan", 600), (tmp_path / "log").read_text()
        doomed = [pid for pid in tree(demo.pid) if "sites/cedar" in command_of(pid)]
        assert doomed
        for member in [member for pid in doomed for member in tree(pid)]:
            signal_quietly(member)
        code = demo.wait(300)
    finally:
        stop(demo)
    assert code == 0, (tmp_path / "log").read_text()
    words = [item["sites"].get("cedar", "absent") for item in status(out)["exchanges"]]
    assert words[:2] == ["ok", "ok"]
    assert "ok" not in words[-1]
    verify_dataset(out / "published", None)
    assert {path.name for path in (out / "published" / "images").iterdir()} == {"alder", "birch"}


@pytest.mark.slow
def test_below_the_quorum_the_demo_stops_with_the_reason(tmp_path):
    out = tmp_path / "out"
    demo = start(demo_command(out, write_configs(tmp_path / "configs")), tmp_path / "log")
    try:
        assert wait_for(lambda: status(out).get("stage") == "gan", 600), (tmp_path / "log").read_text()
        for site in ("birch", "cedar"):
            for pid in [pid for pid in tree(demo.pid) if f"sites/{site}" in command_of(pid)]:
                for member in tree(pid):
                    signal_quietly(member)
        code = demo.wait(300)
    finally:
        stop(demo)
    said = (tmp_path / "log").read_text()
    assert code == 7, said
    assert "quorum" in said
    assert "Traceback" not in said
    assert not (out / "published").exists()


@pytest.mark.slow
def test_a_killed_coordinator_goes_on_where_it_was_and_the_sites_join_again(tmp_path):
    from sfumato_common.strict import load_yaml
    from sfumato_common.study.plan import Plan
    from sfumato_common.study.policy import Policy
    from sfumato_common.supervise import Child
    from sfumato_server.demo.run import Demo, _cohort, _environment, _set_up

    configs, out = write_configs(tmp_path / "configs"), tmp_path / "out"
    demo = Demo(load_yaml(configs / "demo.yaml", Plan), load_yaml(configs / "policy.yaml", Policy), out, None)
    _set_up(demo, _cohort(demo, 60, "chest", None))
    home = demo.coordinator.root
    ports = ["--port", str(demo.port)]
    coordinate = [str(PROGRAMS / "sfumato"), "coordinator", "run", "--home", str(home), "--out", str(out), *ports]
    children = [Child("coordinator", coordinate, _environment(demo, home), tmp_path / "log")]
    try:
        assert wait_for((home / "ports.json").exists, 60), (tmp_path / "log").read_text()
        for name in demo.plan.sites:
            node = [str(PROGRAMS / "sfumato-site"), "run", "--home", str(demo.site(name))]
            children.append(Child(name, node, _environment(demo, demo.site(name)), tmp_path / f"{name}.log"))
        assert wait_for(lambda: (status(out).get("stage"), status(out).get("round")) == ("gan", 2), 600)
        children[0].kill()
        assert children[0].wait(10) is not None
        again = Child("coordinator", coordinate, _environment(demo, home), tmp_path / "log")
        children.append(again)
        assert again.wait(240) == 0, (tmp_path / "log").read_text()
    finally:
        for child in reversed(children):
            child.stop()
    assert [(item["stage"], item["round"]) for item in status(out)["exchanges"]] == [
        ("hello", 1),
        ("gan", 2),
        ("make", 1),
        ("send", 1),
    ]
    commands = [command_of(int(entry.name)) for entry in Path("/proc").glob("[0-9]*")]
    assert not [command for command in commands if "superlink_program" in command and str(home) in command]
    assert status(out)["epsilon_spent"] > 10, "what was paid before the crash stays on the board"
    verify_dataset(out / "published", None)
    for name in demo.plan.sites:
        with SiteHome(demo.site(name)).open_ledger() as ledger:
            charged = [(entry.purpose, entry.round) for entry in ledger.entries() if entry.cohort == "train"]
        assert charged == [("spectral", 1), ("gan", 1), ("gan", 2)]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_both_sides_see_a_study_and_log_json(tmp_path):
    """Steps that a policy shows on the coordinator's screen and in its metrics, a page, and logs that machines read."""
    from urllib.request import urlopen

    from sfumato_client.site.overview import overview as site_overview
    from sfumato_common.strict import load_yaml
    from sfumato_common.study.plan import Plan
    from sfumato_common.study.policy import Policy
    from sfumato_common.supervise import Child, free_port
    from sfumato_server.demo.run import Demo, _cohort, _environment, _set_up
    from sfumato_server.status.overview import overview

    stages = [SMALL_PLAN["stages"][0], {**SMALL_PLAN["stages"][1], "local_steps": 600, "noise_multiplier": 2.0}]
    plan = {**SMALL_PLAN, "stages": stages, "privacy": {"epsilon": 200.0, "delta": 1e-5}}
    policy = {**SMALL_POLICY, "budget": {"epsilon": 300.0, "delta": 1e-5}, "progress": "shown"}
    configs, out = write_configs(tmp_path / "configs", plan, policy), tmp_path / "out"
    demo = Demo(load_yaml(configs / "demo.yaml", Plan), load_yaml(configs / "policy.yaml", Policy), out, None)
    _set_up(demo, _cohort(demo, 60, "chest", None))
    home, page = demo.coordinator.root, free_port()
    ports = ["--port", str(demo.port), "--page-port", str(page)]
    coordinate = ["coordinator", "run", "--home", str(home), "--out", str(out), *ports]
    sfumato, site = ([str(PROGRAMS / name), "--log", "json"] for name in ("sfumato", "sfumato-site"))
    seen = lambda: overview(home, demo.plan)  # noqa: E731
    assert seen()["phase"] == "not started"
    children = [Child("coordinator", [*sfumato, *coordinate], _environment(demo, home), tmp_path / "log")]
    try:
        assert wait_for((home / "ports.json").exists, 60), (tmp_path / "log").read_text()
        for name in demo.plan.sites:
            node = [*site, "run", "--home", str(demo.site(name))]
            children.append(Child(name, node, _environment(demo, demo.site(name)), tmp_path / f"{name}.log"))
        assert wait_for(lambda: any(found["step"] for found in seen()["sites"].values()), 240), seen()
        assert (seen()["phase"], seen()["stage"]) == ("running", "gan")
        with urlopen(f"http://127.0.0.1:{page}/metrics", timeout=20) as answer:
            said = answer.read().decode()
        assert (
            'sfumato_site_steps{site="' in said
            and 'sfumato_site_state{sfumato_site_state="working",site="alder"}' in said
        )
        with urlopen(f"http://127.0.0.1:{page}/", timeout=20) as answer:
            assert "of 600" in answer.read().decode()
        mine = site_overview(demo.site("alder"))
        assert (mine["state"], mine["work"]["stage"], mine["work"]["state"]) == ("joined", "gan", "working")
        assert children[0].wait(600) == 0, (tmp_path / "log").read_text()
        assert seen()["phase"] == "published"
        assert site_overview(demo.site("alder"))["studies"][0]["release"] == {"formal": "approved"}
    finally:
        for child in reversed(children):
            child.stop()
    logs = [*home.glob("logs/*.log"), *demo.site("alder").glob("logs/*.log")]
    assert len(logs) >= 4
    lines = {path.name: [json.loads(line) for line in path.read_text().splitlines()] for path in logs}
    assert [line["round"] for line in lines["study.log"] if line.get("stage") == "gan"] == [1, 2]
    assert {"asked", "answered"} <= {line.get("event") for line in lines["worker.log"]}


def signal_quietly(pid):
    import os

    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_sites_that_work_beyond_the_deadline_publish_and_pay_once(tmp_path):
    """Two of three sites sleep in mid-round for several deadlines: neither is left out, the quorum holds."""
    plan = {**SMALL_PLAN, "federation": {"quorum": 2, "round_deadline_s": 10, "join_deadline_s": 60}}
    out = tmp_path / "out"
    demo = start(demo_command(out, write_configs(tmp_path / "configs", plan)), tmp_path / "log")
    homes = {name: SiteHome(out / "work" / "sites" / name) for name in plan["sites"]}
    accepted = lambda: all(list(home.root.glob("plans/*.json")) for home in homes.values())  # noqa: E731
    try:
        assert wait_for(accepted, 240), (tmp_path / "log").read_text()
        digest = next(homes["cedar"].root.glob("plans/*.json")).stem
        study = homes["cedar"].accepted_plan(digest)
        with in_turn(homes["birch"].turns(study)), in_turn(homes["cedar"].turns(study)):
            assert wait_for(lambda: status(out).get("stage") == "spectral", 240), (tmp_path / "log").read_text()
            time.sleep(45)
            assert status(out)["stage"] == "spectral", "waited for beyond four deadlines"
            assert status(out)["sites"] == {"alder": "done", "birch": "working", "cedar": "working"}
        code = demo.wait(480)
    finally:
        stop(demo)
    assert code == 0, (tmp_path / "log").read_text()
    assert all(item["sites"] == dict.fromkeys(homes, "ok") for item in status(out)["exchanges"])
    verify_dataset(out / "published", None)
    for home in homes.values():
        with home.open_ledger() as ledger:
            charged = [(entry.purpose, entry.round) for entry in ledger.entries() if entry.cohort == "train"]
        assert charged == [("spectral", 1), ("gan", 1), ("gan", 2)]
