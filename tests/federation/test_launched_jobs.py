"""Work by jobs that a template starts: the worker keeps the network, the job charges and computes, may die or wait."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from support.commands import speaker
from support.enrolment import enrol_site, keep_grant
from support.federations import make_federation
from support.reviewed import PASSPHRASES, ReviewedSite
from support.studies import PLAN

from sfumato_client.flower.launcher import Launcher, fill_in
from sfumato_client.site import making
from sfumato_client.site.desk import queue, take_decision
from sfumato_client.site.handler import Site
from sfumato_client.site.home import ADDRESS_FILE
from sfumato_common.crypto.identity import load_identity
from sfumato_common.errors import ConfigError
from sfumato_common.files import write_json
from sfumato_common.protocol.messages import PROTOCOL, Request
from sfumato_common.study.costs import study_events
from sfumato_common.supervise import descendants
from sfumato_server.coordinator.study import run_study

ONE = {**PLAN, "sites": {"alder": {"nominal_patients": 40}}, "federation": {**PLAN["federation"], "quorum": 1}}
LINES = {
    # what an administrator's own script may do before the work, and after
    "plain": 'exec "$@"',
    "late": 'sleep 2; exec "$@"',
    "dying": 'if mkdir {mark} 2>/dev/null; then exit 3; fi; exec "$@"',
    # as soon as the work has begun, whatever the machine's pace
    "killed": 'if mkdir {mark} 2>/dev/null; then "$@" & '
    'until find {root} -name spectral-1.json | grep -q .; do sleep 0.02; done; kill -9 $!; exit 1; fi; exec "$@"',
    "elsewhere": "true",
}


def template(tmp_path, kind):
    script = tmp_path / f"{kind}.sh"
    script.write_text(
        "#!/bin/sh\n"
        + LINES[kind].replace("{mark}", str(tmp_path / "mark")).replace("{root}", str(tmp_path / "f"))
        + "\n"
    )
    script.chmod(0o700)
    return f"{script} {{command}}"


def launched(tmp_path, kind, values=ONE):
    """A federation whose one site works by jobs; what it computes in this process is a fault of the test."""
    federation = make_federation(tmp_path / "f", values)
    site = federation.sites["alder"]
    launcher = Launcher(site.home, template(tmp_path, kind), seconds=120.0)
    federation.sites["alder"] = Site(site.home, site._upload, elsewhere=launcher)
    return federation, launcher


def finish(federation):
    return run_study(federation.coordinator, federation, seed=1, classifier_steps=5)


def charges(home):
    with home.open_ledger() as ledger:
        ledger.verify()
        return [(entry.purpose, entry.round, entry.cohort, entry.event) for entry in ledger.entries()], ledger


@pytest.mark.slow
def test_a_study_by_jobs_is_the_study_of_the_worker_itself(tmp_path, monkeypatch):
    own = make_federation(tmp_path / "own", ONE)
    assert finish(own) == "completed"
    federation, _ = launched(tmp_path, "plain")

    def never(*_):
        raise AssertionError("the worker opened patients' data")

    home = federation.home("alder")
    monkeypatch.setattr(type(home), "charged_cohorts", never)
    assert finish(federation) == "completed"
    monkeypatch.undo()
    assert charges(own.home("alder"))[0] == charges(home)[0]
    with home.open_ledger() as ledger:
        assert ledger.events("train") == study_events(federation.plan, "train")
        assert ledger.unsettled_charges() == []
    for (_, _, one), (_, _, two) in zip(own.sent, federation.sent, strict=True):
        assert (one.status, one.code) == (two.status, two.code)
        forms = [{name: (value.dtype, value.shape) for name, value in reply.arrays.items()} for reply in (one, two)]
        assert forms[0] == forms[1]
    first, second = (
        next(reply.arrays for _, request, reply in study.sent if request.stage == "spectral")
        for study in (own, federation)
    )
    # what follows starts from these, whose last bits are a process's own: it holds as many rows as its memory allows
    assert all(np.allclose(first[name], second[name], rtol=1e-4, atol=1e-4) for name in first)
    assert not list((home.root / "jobs").iterdir()), "nothing of a job stays"


def spectral(federation):
    return federation.sites["alder"].handle(Request(PROTOCOL, federation.plan.digest, "stage", "spectral", 1, {}))


def test_a_job_that_waits_for_its_turn_is_waited_for(tmp_path):
    federation, _ = launched(tmp_path, "late")
    began, states, over = time.monotonic(), set(), threading.Event()

    def look():
        while not over.wait(0.1):
            if (file := federation.home("alder").work_file).exists():
                states.add(json.loads(file.read_text())["state"])

    watcher = threading.Thread(target=look)
    watcher.start()
    assert spectral(federation).status == "ok"
    over.set()
    watcher.join()
    assert time.monotonic() - began > 2.0
    assert "launched" in states


@pytest.mark.parametrize("kind", ["dying", "killed"])
def test_a_job_that_dies_loses_nothing(tmp_path, kind):
    federation, _ = launched(tmp_path, kind)
    died = []
    federation.sites["alder"]._lost = lambda: died.append(1)  # a worker's task ends here, and is asked again
    lost = spectral(federation)
    assert (lost.code, died) == ("busy", [1])
    assert not lost.arrays
    assert spectral(federation).status == "ok"
    with federation.home("alder").open_ledger() as ledger:
        assert len(ledger.entries()) == 1, "it was charged once"
        assert ledger.unsettled_charges() == []


@pytest.mark.slow
def test_a_release_that_waits_for_stewards_is_made_by_jobs_before_and_after_they_decide(waiting, tmp_path, monkeypatch):
    """The job leaves candidates that wait, people decide meanwhile, and another job makes what they let pass."""
    (tmp_path / "f").mkdir()
    own, by_jobs = (waiting.copy(tmp_path / name) for name in ("own", "jobs"))
    fresh = ReviewedSite(waiting.asked, tmp_path / "fresh")
    for site in (by_jobs, fresh):
        launcher = Launcher(site.home, template(tmp_path, "plain"), seconds=120.0)
        site.site = Site(site.home, site.site._upload, elsewhere=launcher)

    def never(*_):
        raise AssertionError("the worker opened patients' data, or made an image")

    monkeypatch.setattr(type(fresh.home), "charged_cohorts", never)
    monkeypatch.setattr(making, "anonymise", never)
    assert fresh.ask("make").status == "pending", "the first job ends, and nothing is shown to the coordinator"
    states = {entry.name: entry.state for entry in queue(fresh.home.root)}
    assert states == {"tiny/formal": "waits", "tiny/declared": "later"} and fresh.uploads == []
    for site in (fresh, by_jobs, own):
        site.hire("ada")
        assert [site.ask(kind).status for kind in ("make", "send")] == ["pending", "pending"], "nobody has decided"
        take_decision(site.home.root, "tiny/formal", "approve", "ada", PASSPHRASES["ada"], "I looked", "")
        assert site.ask("send").status == "pending" and len(site.uploads) == 1, "the part that was approved is ahead"
        take_decision(site.home.root, "tiny/declared", "refuse", "ada", PASSPHRASES["ada"], "blurred", "quality")
        assert [site.ask(kind).status for kind in ("make", "send")] == ["ok", "ok"]
        with site.home.open_ledger() as ledger:
            ledger.verify()
            assert ledger.unsettled_charges() == []
        assert not (site.home.root / "jobs").exists() or not list((site.home.root / "jobs").iterdir())
    charged = [charges(site.home)[0] for site in (own, by_jobs, fresh)]
    assert charged[0] == charged[1] == charged[2]
    assert len({len(site.uploads) for site in (own, by_jobs, fresh)}) == 1


def test_what_the_job_refuses_the_worker_refuses(tmp_path):
    federation, _ = launched(tmp_path, "plain")
    home = federation.home("alder")
    policy = (home.root / "policy.yaml").read_text()
    (home.root / "policy.yaml").write_text(policy.replace("epsilon: 60.0", "epsilon: 0.01"))
    reply = spectral(federation)
    assert (reply.status, reply.code) == ("refused", "budget-exceeded")
    assert charges(home)[0] == []


def test_where_the_job_sees_another_home_or_no_locks_the_site_does_not_start(tmp_path, monkeypatch):
    _, launcher = launched(tmp_path, "plain")
    launcher.check_locks()
    (tmp_path / "other").mkdir()
    _, elsewhere = launched(tmp_path / "other", "elsewhere")
    with pytest.raises(ConfigError, match="sees the same home"):
        elsewhere.check_locks()
    # a file system whose locks stay on one machine: the job finds them open
    monkeypatch.setattr("sfumato_client.flower.launcher.in_turn", lambda folder: Unlocked(folder))
    with pytest.raises(ConfigError, match="not kept out by locks"):
        launcher.check_locks()


class Unlocked:
    def __init__(self, folder):
        (folder / ".lock").touch()

    def __enter__(self):
        return None

    def __exit__(self, *_):
        return None


def test_nothing_secret_stands_in_a_jobs_command_line_or_environment(tmp_path):
    seen = tmp_path / "seen"
    federation, _ = launched(tmp_path, "plain")
    script = tmp_path / "plain.sh"
    script.write_text(f'#!/bin/sh\necho "$@" > {seen}\nenv >> {seen}\nexec "$@"\n')
    assert spectral(federation).status == "ok"
    said, home = seen.read_text(), federation.home("alder")
    keys = [path.read_text() for path in home.identity.iterdir() if path.suffix in (".key", ".pem")]
    assert keys
    assert not [key for key in keys if key.strip() in said]
    words = said.splitlines()[0].split()
    assert {word for word in words if word.startswith("--")} == {"--home", "--job", "--devices"}


def test_a_worker_that_ends_ends_its_job(tmp_path):
    federation, _ = launched(tmp_path, "late")
    home = federation.home("alder")
    parent = os.fork()
    if parent == 0:
        spectral(federation)
        os._exit(0)
    until = time.monotonic() + 30
    while not (children := descendants(parent)) and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    until = time.monotonic() + 10
    while any(_lives(child) for child in children) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [child for child in children if _lives(child)]
    assert charges(home)[0] == []


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_templates():
    own = [sys.executable, "-P", "-m", "sfumato_client.flower.job", "--home", "/a b"]
    words = ["--home", "/a b"]
    assert fill_in("srun --gres=gpu:1 {command}", words) == ["srun", "--gres=gpu:1", *own]
    assert fill_in("kubectl run x -- python -m other {arguments}", words)[-2:] == words
    [shell, flag, line] = fill_in("sh -c 'cd /; {command}'", words)
    assert (shell, flag) == ("sh", "-c")
    assert line.endswith("--home '/a b'")
    for wrong in ("srun", "srun {command} {command}", "srun {command} {arguments}", "srun 'x {command}", ""):
        with pytest.raises(ConfigError, match="--launcher"):
            fill_in(wrong, words)


def test_a_wrong_template_is_one_clear_line(tmp_path, monkeypatch, capsys):
    say = speaker(monkeypatch, capsys)
    federation, _ = launched(tmp_path, "plain")
    home, identity = federation.home("alder").root, load_identity(federation.home("alder").identity)
    keep_grant(federation.coordinator.root, identity, enrol_site(federation.coordinator.root, identity))
    write_json(home / ADDRESS_FILE, {"coordinator": "127.0.0.1:1"})
    code, line, _ = say("sfumato-site", "run", "--home", home, "--launcher", "/no/such/program {command}")
    assert (code, "cannot be started (FileNotFoundError)" in line) == (2, True)
    code, line, _ = say("sfumato-site", "run", "--home", home, "--launcher", "srun")
    assert (code, "'{command}' once" in line) == (2, True)
