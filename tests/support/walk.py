"""A guide's first hour, carried out: its shell blocks in a clean folder, as whoever copies them line by line would.

A block `sh` runs in the first terminal, one after another; one with a `title` in a terminal of its own, which goes on
until the guide is at its end and then hears Ctrl-C. A command that fails ends the walk.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from sfumato_common.supervise import free_port

DOCS = Path(__file__).resolve().parents[2] / "docs"
# the port that guides name: one machine has it once
PORT = "8443"
SECONDS = 1500.0
_BLOCK = re.compile(r"^```sh(?: title=\"([^\"\n]*)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[tuple[str, str]]:
    """(title, commands) of the shell blocks of a page's first hour, in its order; the first terminal has no title."""
    text = (DOCS / page).read_text()
    (hour,) = re.findall(r"^## First hour\n(.*?)^## ", text, flags=re.MULTILINE | re.DOTALL)
    return _BLOCK.findall(hour)


def walk(page: str, folder: Path) -> float:
    """Carry out the first hour of `page` in `folder`; the minutes that it took. Raises AssertionError."""
    folder.mkdir(exist_ok=True)
    began, port, others = time.monotonic(), str(free_port()), list[subprocess.Popen[bytes]]()
    try:
        for number, (title, commands) in enumerate(blocks(page)):
            log = folder / f"{page}-{number}.log"
            terminal = _terminal(_at(commands, port), folder, log)
            if title:
                others.append(terminal)
                continue
            try:
                code = terminal.wait(SECONDS)
            finally:
                _leave(terminal)
            assert code == 0, f"{page}, block {number}: exit code {code}\n{commands}\n{log.read_text()[-3000:]}"
    finally:
        for terminal in others:
            _leave(terminal)
    return (time.monotonic() - began) / 60


def _at(commands: str, port: str) -> str:
    """The commands at a free port; the coordinator's `run` says it where the guide leaves it out."""
    return commands.replace(PORT, port).replace("sfumato coordinator run ", f"sfumato coordinator run --port {port} ")


def _terminal(commands: str, folder: Path, log: Path) -> subprocess.Popen[bytes]:
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        **{name: os.environ[name] for name in ("TMPDIR",) if name in os.environ},
    }
    with log.open("wb") as said:
        return subprocess.Popen(
            ["/bin/bash", "-euo", "pipefail", "-c", commands],
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip


def _leave(terminal: subprocess.Popen[bytes]) -> None:
    """Ctrl-C, and after half a minute the end, for all that the terminal started."""
    for sign in (signal.SIGINT, signal.SIGKILL):
        if terminal.poll() is None:
            os.killpg(terminal.pid, sign)
            try:
                terminal.wait(30)
            except subprocess.TimeoutExpired:
                continue
