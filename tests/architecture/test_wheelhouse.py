"""A wheelhouse: made by its script, installed by its hashes in a namespace without network, and used."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.namespaces import REASON, possible

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "common" / "wheelhouse.py"
# pip's own settings count while wheels are collected, and not where they are installed
BARE = {"PATH": os.environ["PATH"], "PIP_CONFIG_FILE": os.devnull, "OMP_NUM_THREADS": "1"}
ELSEWHERE = "import socket; print(socket.socket().connect_ex(('192.0.2.1', 443)))"


def run(*words, **more):
    return subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=900, check=False, **more)


def without_network(*words, cwd):
    return run("unshare", "--net", *words, env={**BARE, "HOME": str(cwd)}, cwd=cwd)


def test_a_side_that_there_is_not_is_refused():
    done = run(sys.executable, SCRIPT, "--side", "clinic", "--out", "x")
    assert (done.returncode, "invalid choice: 'clinic'" in done.stderr) == (2, True)


def test_it_fills_no_folder_that_holds_something(tmp_path):
    (tmp_path / "old.whl").touch()
    done = run(sys.executable, SCRIPT, "--side", "hospital", "--out", tmp_path)
    assert (done.returncode, "is not empty" in done.stderr) == (2, True)


@pytest.fixture(scope="module", params=["hospital", "coordinator"])
def house(request, tmp_path_factory):
    found = tmp_path_factory.mktemp("torch")
    torch = re.search(r'"(torch==[^"]+)"', (ROOT / "common" / "pyproject.toml").read_text())[1] + "+cpu"
    if run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", found, torch).returncode:
        pytest.skip(f"no index or folder that pip knows has '{torch}'")
    out = tmp_path_factory.mktemp(request.param) / "wheelhouse"
    done = run(sys.executable, SCRIPT, "--side", request.param, "--out", out)
    assert done.returncode == 0, done.stderr
    return request.param, out


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not possible(), reason=REASON)
def test_a_machine_without_network_installs_by_hashes_and_works(house, tmp_path):
    side, folder = house
    assert run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=folder).returncode == 0
    pins = [line.split()[0] for line in (folder / "requirements.txt").read_text().splitlines()[1:]]
    assert len(pins) == len(list(folder.glob("*.whl"))) > 60
    bill = json.loads((folder / "sbom.cdx.json").read_text())
    assert sorted(f"{item['name']}=={item['version']}" for item in bill["components"]) == sorted(pins)
    other = {"hospital": "sfumato-coordinator", "coordinator": "sfumato-site"}[side]
    assert not [pin for pin in pins if pin.startswith((other, "nvidia", "triton"))]

    assert without_network(sys.executable, "-c", ELSEWHERE, cwd=tmp_path).stdout != "0\n"
    assert without_network(sys.executable, "-m", "venv", "venv", cwd=tmp_path).returncode == 0
    install = ["venv/bin/pip", "install", "--quiet", "--no-cache-dir", "--no-index", "--require-hashes"]
    words = [*install, "--find-links", folder, "--requirement", folder / "requirements.txt"]
    done = without_network(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert without_network("venv/bin/pip", "check", cwd=tmp_path).returncode == 0
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    if side == "hospital":
        used = ["venv/bin/sfumato-site", "init", "--home", "site", "--policy", "configs/policy.yaml"]
    else:
        used = ["venv/bin/sfumato", "plan", "check", "configs/demo.yaml"]
    done = without_network(*used, cwd=tmp_path)
    assert done.returncode == 0, done.stderr

    altered = next(folder.glob("jinja2-*.whl"))
    altered.write_bytes(altered.read_bytes() + b"\0")
    again = without_network(*words, "--target", tmp_path / "again", cwd=tmp_path)
    assert again.returncode != 0
    assert "DO NOT MATCH THE HASHES" in again.stderr
