"""Helpers of the real-process tests: a small study's configuration, and watching processes and status."""

import os
import sys
import time
from pathlib import Path

import yaml

from sfumato_common.supervise import descendants
from sfumato_server.status.board import read_board
from support.plans import dp_sgd

PROGRAMS = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}

SMALL_PLAN = {
    "study": "small",
    "image": {"size": 24, "channels": 1},
    "labels": ["normal", "opacity"],
    "sites": {site: {"nominal_patients": 40} for site in ("alder", "birch", "cedar")},
    "privacy": {"epsilon": 30.0, "delta": 1.0e-5},
    "stages": [
        {"kind": "spectral", "bandwidth": 6, "clip_radius": 2.0, "noise_multiplier": 0.5},
        dp_sgd(kind="gan", rounds=2, width=8, generator_steps=2, fakes=8),
    ],
    "release": [{"model": "spectral", "images": 12}, {"model": "gan", "images": 8}],
    "federation": {"quorum": 2, "round_deadline_s": 45, "join_deadline_s": 60},
}  # fmt: skip

SMALL_POLICY = {
    "site": "alder",
    "budget": {"epsilon": 40.0, "delta": 1.0e-5},
    "allowed_stages": ["spectral", "gan"],
    "minimum_patients": 10,
    "release": {
        "allowed_methods": ["dp-sampling"],
        "largest_set": 100,
        "gate": {"declare_verdict": True, "relative_distance_floor": 0.1, "copy_share_limit": 0.5},
    },
}


def write_configs(folder: Path, plan=None, policy=None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "demo.yaml").write_text(yaml.safe_dump(plan or SMALL_PLAN))
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy or SMALL_POLICY))
    return folder


def demo_command(out: Path, configs: Path, patients: int = 60) -> list[str]:
    options = ["--out", str(out), "--configs", str(configs), "--patients", str(patients)]
    return [str(PROGRAMS / "sfumato"), "demo", *options]


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.2)
    return False


def status(out: Path) -> dict:
    return read_board(out / "work" / "coordinator" / "status.json") or {}


def tree(pid: int) -> list[int]:
    return [pid, *descendants(pid)]


def running(pids) -> list[int]:
    alive = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            alive.append(pid)
    return alive


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
