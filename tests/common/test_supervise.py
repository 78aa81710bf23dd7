"""Children end with everything that they started; locks and ports give one clear line."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sfumato_common.errors import BusyError
from sfumato_common.locks import exclusive
from sfumato_common.supervise import Child, descendants, end_orphan, free_port, require_free, run_to_end

SLEEPER = "[sys.executable, '-c', 'import time; time.sleep(60)']"
FAMILY = f"import subprocess, sys, time; subprocess.Popen({SLEEPER}); time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def _wait(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def _running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_stop_ends_the_whole_tree(tmp_path):
    child = Child("family", [sys.executable, "-c", FAMILY], dict(os.environ), tmp_path / "log")
    assert _wait(lambda: len(descendants(child.pid)) == 1)
    tree = [child.pid, *descendants(child.pid)]
    child.stop()
    assert not [pid for pid in tree if _running(pid)]


def test_stop_kills_what_ignores_the_polite_signal(tmp_path):
    child = Child("stubborn", [sys.executable, "-c", STUBBORN], dict(os.environ), tmp_path / "log")
    assert _wait(lambda: "up" in (tmp_path / "log").read_text())
    child.stop(grace_s=0.3)
    assert child.poll() == -signal.SIGKILL


def test_children_die_with_a_killed_parent(tmp_path):
    code = (
        "import os, sys, time; from pathlib import Path; from sfumato_common.supervise import Child;"
        f"c = Child('c', {SLEEPER}, dict(os.environ), Path({str(tmp_path)!r}) / 'l');"
        "print(c.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    assert _running(pid)
    parent.kill()
    parent.wait()
    assert _wait(lambda: not _running(pid))


def test_an_orphan_is_ended_by_its_own_argument_and_no_other_process(tmp_path):
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    mine, other = (Child(name, [*sleep, name], os.environ, tmp_path / name) for name in ("mine", "other"))
    record = tmp_path / "superlink.pid"
    try:
        assert _wait(lambda: b"mine" in Path(f"/proc/{mine.pid}/cmdline").read_bytes())
        end_orphan(record, "mine")  # nothing was recorded
        record.write_text(f"{other.pid}\n")
        end_orphan(record, "mine")  # the number is another's now
        record.write_text("no number")
        end_orphan(record, "mine")
        assert (mine.poll(), other.poll()) == (None, None)
        record.write_text(f"{mine.pid}\n")
        end_orphan(record, "mine")
        assert mine.wait(5) == -signal.SIGKILL
        assert other.poll() is None
        end_orphan(record, "mine")  # gone already
    finally:
        for child in (mine, other):
            child.stop()


def test_second_holder_of_a_folder_is_refused(tmp_path):
    with (
        exclusive(tmp_path, "a demo"),
        pytest.raises(BusyError, match="already running"),
        exclusive(tmp_path, "a demo"),
    ):
        pass
    with exclusive(tmp_path, "a demo"):
        pass  # released again


def test_taken_port_is_named():
    import socket

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(BusyError, match=str(port)):
            require_free("127.0.0.1", port)
    require_free("127.0.0.1", free_port())


def test_short_commands_are_bounded_in_time():
    assert run_to_end([sys.executable, "-c", "print('hello')"], dict(os.environ), 20)[1].strip() == "hello"
    with pytest.raises(BusyError, match="did not end"):
        run_to_end([sys.executable, "-c", "import time; time.sleep(30)"], dict(os.environ), 0.5)


SERVING = """
import os
from concurrent.futures import ThreadPoolExecutor
import sfumato_server, grpc
from sfumato_common.supervise import run_to_end
server = grpc.server(ThreadPoolExecutor(2))
channel = grpc.insecure_channel(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
server.start()
try:
    channel.unary_unary("/no/such")(b"", timeout=5)
except grpc.RpcError:
    pass
print([ended for ended in (run_to_end(["true"], {"PATH": os.defpath}, 20) for _ in range(400)) if ended != (0, "")])
os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="gRPC's handlers at a fork are there on Linux")
def test_a_process_that_serves_grpc_loses_no_child():
    """A coordinator serves the intake while it starts SuperLink and study: one that dies at its start costs a study."""
    done = subprocess.run([sys.executable, "-c", SERVING], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


FORKS = """
import os, signal, sys
from sfumato_common.supervise import run_in_fork
def crash(): os.kill(os.getpid(), signal.SIGSEGV)
def fail(): raise ValueError("local")
codes = [run_in_fork(work) for work in (lambda: None, lambda: sys.exit(3), crash, fail, lambda: None)]
print(codes, flush=True)
"""


def test_a_fork_ends_with_its_work_and_leaves_its_parent_alive():
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == f"[0, 3, {-signal.SIGSEGV}, 1, 0]"
    assert "ValueError: local" in done.stderr


THREADED = """
import threading, time
from sfumato_common.supervise import run_in_fork
threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
run_in_fork(lambda: None)
"""


def test_a_process_with_threads_does_not_fork():
    done = subprocess.run([sys.executable, "-c", THREADED], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "several threads cannot fork" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_fork_dies_with_a_killed_parent():
    code = (
        "import os, time; from sfumato_common.supervise import run_in_fork;"
        "run_in_fork(lambda: (print(os.getpid(), flush=True), time.sleep(60)))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    assert _wait(lambda: not _running(pid))
