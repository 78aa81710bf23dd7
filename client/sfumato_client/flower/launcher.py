"""Work by a job of the site's own scheduler: a template of its administrator starts it, on a machine of their choice.

    sfumato-site run --launcher 'srun --gres=gpu:1 --time=2:00:00 {command}'

The worker keeps the network and the answer. What is charged and computed for a question, the job does, in the home,
which both see: it leaves there what the ledger settled, and the worker sends that. A job reaches no coordinator and
needs no port, and nothing secret stands in its command line. One that dies is like work that was killed: the question
is asked again, and worked on under its charge. A job that waits for its turn is work: its task heartbeats meanwhile.
"""

from __future__ import annotations

import json
import secrets
import shlex
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from sfumato_client.egress.supernode import ALLOCATOR, LINK_VARIABLE
from sfumato_client.site.home import SiteHome
from sfumato_common.errors import ConfigError, WorkerLost
from sfumato_common.files import make_private_folder, write_atomic
from sfumato_common.locks import in_turn
from sfumato_common.protocol.frames import write_frame
from sfumato_common.protocol.messages import Request
from sfumato_common.supervise import Child, flower_environment

COMMAND, ARGUMENTS = "{command}", "{arguments}"
QUESTION, END, SEEN, DATABASE = "question", "end.json", "seen", "locked.sqlite"
# a queue may be long; the coordinator waits for work as long as its `--work-hours` say
LONGEST_SECONDS = 24 * 3600.0
_MODULE = "sfumato_client.flower.job"


def fill_in(template: str, arguments: Sequence[str]) -> list[str]:
    """The command line of `template` with `{command}`, or its `{arguments}` alone behind a program of the template's.

    Raises ConfigError unless it has exactly one of the two.
    """
    try:
        words = shlex.split(template)
    except ValueError:
        raise ConfigError(f"--launcher: a quotation mark in it is not closed: {template}") from None
    if sum(word.count(COMMAND) + word.count(ARGUMENTS) for word in words) != 1:
        raise ConfigError(
            f"--launcher needs '{COMMAND}' once, where the job's command goes, or '{ARGUMENTS}' behind it"
        )
    filled: list[str] = []
    for word in words:
        own = [sys.executable, "-P", "-m", _MODULE, *arguments] if COMMAND in word else [*arguments]
        if word in (COMMAND, ARGUMENTS):
            filled += own
        else:  # inside a line for another shell
            filled.append(word.replace(COMMAND, shlex.join(own)).replace(ARGUMENTS, shlex.join(own)))
    return filled


class Launcher:
    """Starts the jobs of one home by `template`; `devices` is what each works on, 0 for all that it finds."""

    def __init__(self, home: SiteHome, template: str, devices: int = 0, seconds: float = LONGEST_SECONDS) -> None:
        fill_in(template, [])
        self._home, self._template, self._devices, self._seconds = home, template, devices, seconds

    def __call__(self, request: Request) -> str:
        """Let a job work on `request`; the code of its refusal. Raises WorkerLost where it ended without a word."""
        with self._folder() as folder:
            with (folder / QUESTION).open("wb") as file:
                write_frame(file, request.to_config(), request.arrays)
            self._run(folder)
            try:
                return str(json.loads((folder / END).read_text())["code"])
            except (OSError, ValueError, KeyError):
                raise WorkerLost("the launched job ended without an answer; its log 'jobs.log' may say why") from None

    def check_locks(self) -> None:
        """Raise ConfigError unless a job sees this home, and is kept out by the locks that this process holds.

        Ledger and turns rest on them. Over NFS they hold with version 4, or with its lock service; on many a cluster's
        file system only where it was mounted so.
        """
        with self._folder() as folder:
            mark = secrets.token_hex(16)
            write_atomic(folder / SEEN, mark)
            with closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as database, in_turn(folder):
                database.execute("CREATE TABLE held (number INTEGER)")
                database.execute("BEGIN IMMEDIATE")
                self._run(folder, "--check-locks")
            try:
                found = json.loads((folder / END).read_text())
            except (OSError, ValueError):
                raise ConfigError(
                    "--launcher: its job left nothing in the home: it must start one that sees the same home under the "
                    "same path; 'jobs.log' in 'logs' has what it said"
                ) from None
        if found != {"seen": mark, "flock": "held", "sqlite": "held"}:
            raise ConfigError(
                "--launcher: a job on that machine is not kept out by locks that are held here, so that two processes "
                "could write one ledger: put the home on a file system whose locks hold between machines"
            )

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """A folder of one job's own, gone after it."""
        folder = self._home.link / "jobs" / secrets.token_hex(8)
        make_private_folder(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _run(self, folder: Path, *more: str) -> None:
        words = ["--home", str(self._home.root.resolve()), "--job", folder.name, "--devices", str(self._devices), *more]
        words += ["--study", self._home.study] if self._home.study else []
        environment = flower_environment(self._home.link.resolve(), [Path(sys.executable).parent], LINK_VARIABLE)
        try:
            job = Child(
                "job", fill_in(self._template, words), {**environment, **ALLOCATOR}, self._home.logs / "jobs.log"
            )
        except OSError as error:
            raise ConfigError(f"--launcher: its program cannot be started ({type(error).__name__}); check it") from None
        try:
            job.wait(self._seconds)
        finally:
            job.stop()
