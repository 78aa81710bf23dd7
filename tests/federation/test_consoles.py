"""What the consoles of real processes say at each station of a study: none is empty, none says what is not so."""

from __future__ import annotations

import copy
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from itertools import pairwise

import pytest
import yaml
from support.processes import ENVIRONMENT, PROGRAMS, SMALL_PLAN, SMALL_POLICY, wait_for

from sfumato_common.strict import parse
from sfumato_common.study.load import plan_text
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy
from sfumato_server.demo.run import Demo, _cohort, _set_up
from sfumato_server.status.overview import PAGE

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
    pytest.mark.timeout(1200),
    pytest.mark.slow,
]
PLAN = {
    **copy.deepcopy(SMALL_PLAN),
    "sites": {site: {"nominal_patients": 40} for site in ("alder", "birch")},
    "federation": {"quorum": 1, "round_deadline_s": 45, "join_deadline_s": 240},
}
REVIEWED = {**SMALL_POLICY, "release": {**SMALL_POLICY["release"], "review": {"by": "steward", "queue": "told"}}}
CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n\x07]")
STAMP = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ")


class Console:
    """A process whose output goes to a file, as under a service manager."""

    def __init__(self, log, *command):
        self.log, self.heard = log, 0
        # a suite that a shell runs in the background is born deaf to Ctrl-C, and so would its children be
        hearing = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
        words = [PROGRAMS / command[0], *map(str, command[1:])]
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                words, env=ENVIRONMENT, stdout=stream, stderr=subprocess.STDOUT, preexec_fn=hearing
            )

    @property
    def said(self):
        return self.log.read_text()

    def words(self):
        """All that was said, as one line: a terminal breaks lines where they end for it."""
        return " ".join(CONTROLS.sub(" ", self.said).split())

    def says_in_words(self, *sentences, seconds=240):
        """Wait until each of `sentences` stands somewhere in what was said."""
        for said in sentences:
            assert wait_for(lambda: said in self.words() or self.process.poll() is not None, seconds), self.words()  # noqa: B023
            assert said in self.words()

    def says(self, words, seconds=180):
        """Wait until it says `words`, after what was heard of it before."""
        assert wait_for(lambda: words in self.said[self.heard :] or self.process.poll() is not None, seconds), self.said
        assert words in self.said[self.heard :], self.said
        self.heard = self.said.index(words, self.heard)

    def interrupt(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


class Terminal(Console):
    """A process whose output goes to a terminal of 200 columns and 60 lines, of which every byte is kept."""

    def __init__(self, log, *command):
        self.log, self.heard = log, 0
        own, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 200, 0, 0))
        words = [PROGRAMS / command[0], *map(str, command[1:])]
        environment = {**ENVIRONMENT, "TERM": "xterm-256color", "LINES": "60"}
        log.touch()
        hearing = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
        self.process = subprocess.Popen(
            words, env=environment, stdin=its, stdout=its, stderr=its, preexec_fn=hearing, start_new_session=True
        )
        os.close(its)
        threading.Thread(target=self._keep, args=(own,), daemon=True).start()

    def _keep(self, own):
        with self.log.open("ab", buffering=0) as stream:
            while True:
                try:
                    data = os.read(own, 65536)
                except OSError:  # the terminal's other end is closed
                    data = b""
                if not data:
                    os.close(own)
                    return
                stream.write(data)


def set_up(out, plan, policy=SMALL_POLICY):
    demo = Demo(parse(plan, Plan, "plan"), parse(policy, Policy, "policy"), out, None)
    _set_up(demo, _cohort(demo, 60, "chest", None))
    return demo


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return set_up(tmp_path_factory.mktemp("consoles") / "out", PLAN)


def test_every_console_speaks_from_an_absent_coordinator_to_a_published_set(demo, tmp_path):
    root, running = demo.coordinator.root, []

    def start(name, *command):
        running.append(Console(tmp_path / f"{name}.log", *command))
        return running[-1]

    def coordinator(name):
        return start(name, "sfumato", "coordinator", "run", "--home", root, "--out", demo.out, "--port", demo.port)

    def site(name):
        return start(name, "sfumato-site", "run", "--home", demo.site(name))

    try:
        alder = site("alder")
        alder.says(f"connecting to coordinator 127.0.0.1:{demo.port}")
        alder.says("not connected to coordinator")
        # on an idle machine the node's first failure is told after the study, on a busy one before it
        alder.says_in_words(
            "nothing listens there",
            "takes a patient from epsilon 0.000 to 10.519 at most",
            "epsilon 0.000 of 40 at delta 1e-05 (unit patient, add/remove)",
        )
        first = coordinator("coordinator")
        first.says("0 of 2 sites are here, the quorum is 1: 1 more within")
        alder.says("  connected to coordinator")
        first.says("1 of 2 sites are here, the quorum is 1: starting in")
        first.process.kill()
        first.process.wait()
        alder.says("not connected to coordinator")
        again = coordinator("again")
        alder.says("it was started anew")
        alder.says("  connected to coordinator")
        for plan in (demo.site("birch") / "plans").iterdir():
            plan.unlink()
        birch = site("birch")
        birch.says("no plan is accepted here")
        birch.says("refused (policy-refused): hello")
        alder.says("asked: spectral; leaves when done")
        alder.says("the noised result of this round, charged before a patient is read")
        alder.says("formal approved")
        alder.says("'small' has this site's release", 300)
        again.says("published: ", 300)
        assert again.process.wait(60) == 0
        alder.says("not connected to coordinator")
        assert alder.interrupt() == 130
    finally:
        for console in running:
            console.interrupt()
    assert alder.said.endswith("stopped\n") and "stopped since" in alder.said
    assert all("Traceback" not in console.said for console in running)
    lines = [STAMP.sub("", line) for line in alder.said.splitlines()]
    assert len(lines) < 60 and not [line for line, after in pairwise(lines) if line == after]
    page = (root / PAGE).read_text()
    assert "<h1>published</h1>" in page and 'http-equiv="refresh"' not in page
    assert 'href="../../published/report.html"' in page


def command(*words):
    done = subprocess.run(
        [PROGRAMS / "sfumato-site", *map(str, words)], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", [Console, Terminal])
def test_consoles_tell_of_a_steward_of_a_refusal_and_of_another_plan(tmp_path, kind):
    """Alder's steward has its release, birch's policy forbids the study's stage, cedar accepted another plan."""
    sites = ("alder", "birch", "cedar")
    plan = {**PLAN, "sites": {site: {"nominal_patients": 40} for site in sites}}
    demo, word, running = set_up(tmp_path / "out", plan, REVIEWED), tmp_path / "word", []
    word.write_text("a steward's long passphrase\n")
    command("steward", "add", "ada", "--home", demo.site("alder"), "--passphrase-file", word)
    rules = yaml.safe_load((demo.site("birch") / "policy.yaml").read_text())
    (demo.site("birch") / "policy.yaml").write_text(yaml.safe_dump({**rules, "allowed_stages": ["spectral"]}))
    other = parse({**plan, "federation": {**plan["federation"], "round_deadline_s": 46}}, Plan, "plan")
    assert other.digest != demo.plan.digest
    (tmp_path / "other.yaml").write_text(plan_text(other))
    command("unaccept", "small", "--home", demo.site("cedar"))
    command("accept", tmp_path / "other.yaml", "--home", demo.site("cedar"), "--yes")

    def start(name, *words):
        running.append(kind(tmp_path / f"{name}.log", *words))
        return running[-1]

    try:
        alder, birch, cedar = (start(name, "sfumato-site", "run", "--home", demo.site(name)) for name in sites)
        run = ("sfumato", "coordinator", "run", "--home", demo.coordinator.root, "--out", demo.out, "--port", demo.port)
        coordinator = start("coordinator", *run)
        birch.says_in_words(
            "connected to coordinator",
            "refused (policy-refused)",
            "next: the last question was refused: the site's policy forbids what was asked; 'local/errors/",
        )
        cedar.says_in_words(
            f"next: the coordinator asks under a plan that is not accepted here (hash {demo.plan.digest[:12]}): get "
            f"its 'plan.yaml', run 'sfumato-site accept --home {demo.site('cedar')}', and tell the coordinator"
        )
        alder.says_in_words(
            f"next: small/formal waits for a steward: 'sfumato-site review --home {demo.site('alder')}' shows it, and "
            "takes the decision",
            "formal waits for",
        )
        coordinator.says_in_words("its stewards have the release")
        said = ("--steward", "ada", "--reason", "nobody is seen", "--looked", "--passphrase-file", word)
        command("approve", "small/formal", "--home", demo.site("alder"), *said)
        alder.says_in_words("formal approved", "next: nothing: 'small' has this site's release")
        assert coordinator.process.wait(300) == 0, coordinator.words()
        assert [site.interrupt() for site in (alder, birch, cedar)] == [130] * 3
    finally:
        for console in running:
            console.interrupt()
    for console in running:
        assert "Traceback" not in console.said
        assert ("\x1b[" in console.said) == (kind is Terminal)
