"""What the consoles of real processes say at each station of a study: none is empty, none says what is not so."""

from __future__ import annotations

import copy
import re
import signal
import subprocess
import sys
from itertools import pairwise

import pytest
from support.processes import ENVIRONMENT, PROGRAMS, SMALL_PLAN, SMALL_POLICY, wait_for

from sfumato_common.strict import parse
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

    def says(self, words, seconds=180):
        """Wait until it says `words`, after what was heard of it before."""
        assert wait_for(lambda: words in self.said[self.heard :] or self.process.poll() is not None, seconds), self.said
        assert words in self.said[self.heard :], self.said
        self.heard = self.said.index(words, self.heard)

    def interrupt(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("consoles") / "out"
    demo = Demo(parse(PLAN, Plan, "plan"), parse(SMALL_POLICY, Policy, "policy"), out, None)
    _set_up(demo, _cohort(demo, 60, "chest", None))
    return demo


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
        alder.says("nothing listens there")
        alder.says("takes a patient from epsilon 0.000 to 10.519 at most")
        alder.says("epsilon 0.000 of 40 at delta 1e-05 (unit patient, add/remove)")
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
