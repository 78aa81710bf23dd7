"""A coordinator's and sites' processes, started by their commands, all of which end with the test."""

import time
from contextlib import contextmanager

from sfumato_client.site.home import ADDRESS_FILE
from sfumato_common.files import write_json
from sfumato_common.supervise import Child
from support.processes import ENVIRONMENT, PROGRAMS, running, wait_for

WITHOUT = {name: value for name, value in ENVIRONMENT.items() if name != "SFUMATO_CA_PASSPHRASE"}


class Parties:
    """Processes by name, all of which are ended."""

    def __init__(self, root):
        self.root, self.children = root, {}

    def start(self, name, program, *words):
        self.children[name] = Child(
            name, [str(PROGRAMS / program), *map(str, words)], WITHOUT, self.root / f"{name}.log"
        )

    def coordinator(self, name, home, port):
        out = self.root / f"{name}-out"
        self.start(name, "sfumato", "coordinator", "run", "--home", home, "--out", out, "--port", port)
        assert wait_for(lambda: (home / "ports.json").exists(), 120), self.said()
        return out

    def keep_running(self, name, *command):
        """As a supervisor does: Flower's SuperLink refuses a node that was killed for about a minute."""
        if self.children[name].poll() is not None:
            self.start(name, *command)

    def end(self, name, beside=lambda: None, seconds=420):
        until = time.monotonic() + seconds
        while (code := self.children[name].wait(1)) is None and time.monotonic() < until:
            beside()
        assert code == 0, self.said()

    def said(self):
        return "\n".join(f"--- {path.name}\n{path.read_text()[-1500:]}" for path in self.root.rglob("*.log"))


@contextmanager
def parties(root):
    made = Parties(root)
    try:
        yield made
    finally:
        for child in reversed(list(made.children.values())):
            child.stop()
        assert not running([child.pid for child in made.children.values()])


def address(home, port):
    write_json(home.link / ADDRESS_FILE, {"coordinator": f"127.0.0.1:{port}"})
