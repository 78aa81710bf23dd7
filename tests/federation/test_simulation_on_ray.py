"""`sfumato simulate --on ray`, whole: what comes out is what the process pool gives, and nobody else hears of it."""

import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import load_file
from support.plans import dp_sgd, small_plan
from support.traffic.sockets import can_trace, outward, traced

from sfumato_client.site.home import SiteHome
from sfumato_common.errors import ConfigError
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.supervise import descendants
from sfumato_server.enrol import Registry
from sfumato_server.pool import pool_packages
from sfumato_server.simulate.engines import PROCESSES, RAY, Where, started
from sfumato_server.simulate.run import Question, run_folder, run_simulation

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'sfumato[ray]'"),
]
PROGRAM = Path(sys.executable).parent / "sfumato"
VALUES = small_plan(dp_sgd(kind="flow"), released="spectral", sites={"alder": 40}, epsilon=60.0, noise=0.7)
SIZE = (3, 24, 1)  # sites, patients, repeat


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("plan") / "plan.yaml"
    file.write_text(yaml.safe_dump(VALUES))
    return file


def ran(plan_file, out, engine):
    """(row of the report, models, pixels of all images, epsilons that ledgers hold) of one study with its release."""
    question = Question(plan_file, "phantom", [SIZE[0]], [SIZE[1]], release=True, keep=True)
    [row] = run_simulation(question, out, Where(engine, 2), lambda *told: None)["rows"]
    folder = run_folder(out, *SIZE)
    coordinator = folder / "coordinator"
    plan = parse(json.loads((coordinator / "plan.json").read_text()), Plan, "plan")
    models = {path.name: load_file(path) for path in (coordinator / "checkpoints").rglob("*-model.safetensors")}
    pictures = sorted(item.pixel_sha256 for item in pool_packages(coordinator, plan, Registry(coordinator)).items)
    spent = {}
    for path in sorted((folder / "sites").iterdir()):
        with SiteHome(path).open_ledger() as ledger:
            ledger.verify()
            spent[path.name] = ledger.events("train", plan.digest)
    return row, models, pictures, spent


def test_ray_gives_the_same_bytes_as_the_pool(plan_file, tmp_path):
    (row, models, pictures, spent), other = (ran(plan_file, tmp_path / name, name) for name in (PROCESSES, RAY))
    measured = ("seconds", "processor_seconds", "largest_worker_megabytes", "coordinator_megabytes", "package_bytes")
    assert {key: value for key, value in row.items() if key not in measured} == {
        key: value for key, value in other[0].items() if key not in measured
    }
    assert len(models) == 2 and set(models) == set(other[1])
    for name, arrays in models.items():
        assert {key: value.tobytes() for key, value in arrays.items()} == {
            key: value.tobytes() for key, value in other[1][name].items()
        }
    assert len(pictures) == 12 and pictures == other[2]
    assert len(spent) == 3 and spent == other[3]


def test_our_own_ray_listens_on_loopback_alone_and_leaves_nothing(plan_file, tmp_path):
    before = set(Path("/tmp").glob("sfumato-ray-*"))
    with started(tmp_path, Where(RAY, 1)):
        [session] = set(Path("/tmp").glob("sfumato-ray-*")) - before
        assert session.stat().st_mode & 0o777 == 0o700 and (session / "r").is_dir()
        tree = descendants(os.getpid())
        assert any(b"gcs_server" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in tree), "Ray runs"
        found = listening([os.getpid(), *tree])
        assert len(found) >= 3 and {address for address, _ in found} == {"loopback"}, found
        assert not {port for _, port in found} & {8265}, "a dashboard listens"
    assert set(Path("/tmp").glob("sfumato-ray-*")) == before
    assert not [pid for pid in descendants(os.getpid()) if b"ray" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def listening(pids):
    """(loopback or the address as the kernel has it, port) of every TCP socket that one of `pids` listens at."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                inodes.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
            except OSError:
                continue
    found = set()
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, _, port = fields[1].partition(":")
                found.add(("loopback" if address in loopback else address, int(port, 16)))
    return found


def local(address):
    """Whether an address is this machine's own; IPv4 may be written as IPv6."""
    read = ip_address(address)
    return (getattr(read, "ipv4_mapped", None) or read).is_loopback


@pytest.mark.skipif(not can_trace(), reason="strace is not installed, or may not be used here")
@pytest.mark.timeout(600)
def test_nothing_is_told_to_anybody_and_nothing_is_written_elsewhere(plan_file, tmp_path):
    for name in ("home", "cwd"):
        (tmp_path / name).mkdir()
    command = [str(PROGRAM), "simulate", str(plan_file), "--sites", "1", "--patients", "20", "--out", "out"]
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    for name in [name for name in environment if name.startswith("RAY_")]:
        environment.pop(name)
    done = subprocess.run(
        traced([*command, "--workers", "1", "--on", "ray", "--json"], tmp_path / "calls"),
        env=environment, cwd=tmp_path / "cwd", capture_output=True, text=True, timeout=550, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [row] = json.loads(done.stdout)["rows"]
    assert row["answers"]["ok"] == 3
    assert not [peer for peer in outward(tmp_path / "calls", set()) if not local(peer.address)]
    assert not list((tmp_path / "home").rglob("*")) and {path.name for path in (tmp_path / "cwd").iterdir()} == {"out"}


def test_on_a_cluster_homes_stay_with_their_machine_and_go_with_it(tmp_path):
    # Ray reads once a process whether it is alone on its machine, so a cluster has a process of its own
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as short:  # for sockets, and what a lost machine leaves
        environment["TMPDIR"] = short
        done = subprocess.run(
            [sys.executable, "-m", "support.ray_cluster", str(tmp_path)], cwd=Path(__file__).parents[1],
            env=environment, capture_output=True, text=True, timeout=280, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["workers"] == 2, "one a core, though the accelerators have room for four"
    assert said["devices"] == ["0", "0"] and "room for 2 workers" in said["too many"]
    assert said["machines"] == 2 and said["homes"] == [["one"], ["two"]]
    # of the machine that went nothing answers any more, and nothing is made anew in its place; the other one goes on
    assert "died" in said["first"] and "is gone" in said["then"]
    assert said["went on"] == ["three", "two"]
    assert not (tmp_path / "run").exists() and said["left"] == []


def test_a_cluster_that_does_not_answer_is_told(tmp_path):
    with (
        pytest.raises(ConfigError, match="no Ray cluster answers"),
        started(tmp_path, Where(RAY, address="127.0.0.1:1")),
    ):
        pass


def test_homes_of_a_cluster_cannot_be_kept(plan_file, tmp_path):
    question = Question(plan_file, "phantom", [1], [20], keep=True)
    with pytest.raises(ConfigError, match="--keep"):
        run_simulation(question, tmp_path, Where(RAY, address="127.0.0.1:1"), lambda *told: None)
