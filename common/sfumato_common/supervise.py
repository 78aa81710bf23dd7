"""Child processes that never outlive their parent: started in their own session, ended by process id, bounded in time.

The only module of the project that starts a process; egress and flower (site), rounds and demo (coordinator) call it.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NoReturn, cast

from sfumato_common.errors import BusyError

log = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1
_ORPHAN_SECONDS = 10.0
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _die_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Ask Linux to send a signal when the parent dies, also by kill -9 (prctl(2), PR_SET_PDEATHSIG)."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, number)


class Child:
    """One supervised process with its log file; `stop` ends it and everything that it started.

    With `piped` its standard input and output are `to_child` and `from_child`, and only its errors go to the log.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path, *, piped: bool = False
    ) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                list(command),
                env=dict(environment),
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else stream,
                stderr=stream if piped else subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    @property
    def pid(self) -> int:
        """Process id, also the id of its process group."""
        return self._process.pid

    @property
    def to_child(self) -> BinaryIO:
        """The standard input of a piped child."""
        return cast(BinaryIO, self._process.stdin)

    @property
    def from_child(self) -> BinaryIO:
        """The standard output of a piped child."""
        return cast(BinaryIO, self._process.stdout)

    def poll(self) -> int | None:
        """Exit code, or None while it runs."""
        return self._process.poll()

    def wait(self, seconds: float) -> int | None:
        """Exit code, or None when it still runs after `seconds`."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """SIGKILL to the process alone (what a crash looks like); its children notice by themselves."""
        self._process.kill()

    def stop(self, grace_s: float = 5.0) -> None:
        """SIGTERM to the whole tree, SIGKILL after `grace_s`; returns when nothing of it runs."""
        tree = descendants(self.pid)
        for pid in (self.pid, *tree):
            _signal(pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline and (self.poll() is None or any(map(_alive, tree))):
            time.sleep(0.05)
        for pid in (self.pid, *tree, *descendants(self.pid)):
            _signal(pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was not written yet has nobody to read it
                    pipe.close()


def flower_environment(home: Path, first_on_path: Sequence[Path], variable: str) -> dict[str, str]:
    """A clean environment for a Flower process of the party at `home`, which finds its home in `variable`.

    Nothing is inherited that could redirect imports; Flower's telemetry and update checks are off.
    """
    kept = {
        name: os.environ[name]
        for name in ("LANG", "TZ", "OMP_NUM_THREADS", "TMPDIR", "SFUMATO_MEMORY", "SFUMATO_LOG", "SFUMATO_STORE_KEY")
        if name in os.environ
    }
    return {
        **kept,
        "PATH": ":".join([*map(str, first_on_path), "/usr/bin", "/bin"]),
        "HOME": str(home),
        "FLWR_HOME": str(home / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PYTHONSAFEPATH": "1",
        variable: str(home),
    }


def run_to_end(command: Sequence[str], environment: Mapping[str, str], seconds: float) -> tuple[int, str]:
    """Run a short command; returns (exit code, stdout and stderr together). Killed with BusyError after `seconds`."""
    try:
        done = subprocess.run(
            list(command),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
            preexec_fn=_die_with_parent,
        )
    except subprocess.TimeoutExpired:
        raise BusyError(f"'{Path(command[0]).name}' did not end within {seconds:.0f} s and was stopped") from None
    return done.returncode, done.stdout.decode(errors="replace")


def run_in_fork(work: Callable[[], None]) -> int:
    """Run `work` in a fork of this process and wait for its end; its exit code, negative for a signal.

    The fork dies with this process, at once. Only a process with one thread forks: a lock that another thread holds
    would stay locked in the fork for ever.
    """
    assert _threads() == 1, "a process with several threads cannot fork safely; something imported starts one"
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _run_and_exit(work, parent)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _run_and_exit(work: Callable[[], None], parent: int) -> NoReturn:
    """The fork's whole life; nothing of its parent's clean-up runs in it."""
    code = 1
    try:
        _die_with_parent(signal.SIGKILL)
        if os.getppid() == parent:  # it could have died before
            work()
            code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        log.exception("a fork ended by a fault")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _threads() -> int:
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.is_dir() else threading.active_count()


def end_descendants() -> None:
    """SIGKILL to everything below this process: the last word when short commands of other threads still run."""
    for pid in descendants(os.getpid()):
        _signal(pid, signal.SIGKILL)


def end_orphan(record: Path, argument: str) -> None:
    """SIGKILL to the process whose id stands in the file `record`, and to all below it: what a crashed parent left.

    Only where its command line has `argument`, which nothing else would have: ids are used again.
    """
    try:
        pid = int(record.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (OSError, ValueError):
        return
    if argument not in command:
        return
    tree = (pid, *descendants(pid))
    for member in tree:
        _signal(member, signal.SIGKILL)
    deadline = time.monotonic() + _ORPHAN_SECONDS
    while time.monotonic() < deadline and any(map(_alive, tree)):
        time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    """Process ids of everything below `pid`, by /proc (Linux); empty elsewhere."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found: list[int] = []
    queue = [pid]
    while queue:
        children = parents.get(queue.pop(), [])
        found += children
        queue += children
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return  # already gone


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def free_port() -> int:
    """A TCP port that was free on loopback a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_free(host: str, port: int) -> None:
    """Raise BusyError when something already listens on (or holds) host:port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            raise BusyError(f"port {port} on {host} is in use; stop what holds it or choose another port") from None
