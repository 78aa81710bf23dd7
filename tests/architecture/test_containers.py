"""docker-compose.yml as Docker's own program reads it, and the gate's file as HAProxy does; no daemon is needed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.namespaces import load

ROOT = Path(__file__).resolve().parents[2]


def compose(*words):
    """Docker's program with its plugin, or the plugin alone; skips where there is neither."""
    for program in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(program[0])
            and not subprocess.run([*program, "version"], capture_output=True, check=False).returncode
        ):
            return subprocess.run([*program, *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    pytest.skip("neither 'docker compose' nor 'docker-compose' is installed")


def test_compose_takes_the_file(tmp_path):
    done = compose("config", "--quiet")
    assert done.returncode == 0, done.stderr
    (tmp_path / "wrong.yaml").write_text((ROOT / "docker-compose.yml").read_text().replace("cap_drop", "cap_dropped"))
    assert compose("-f", str(tmp_path / "wrong.yaml"), "config", "--quiet").returncode != 0


def test_compose_takes_what_the_document_says_for_hospitals_elsewhere(tmp_path):
    (text,) = re.findall(r"```yml\n(services:.*?)```", (ROOT / "docs" / "install.md").read_text(), flags=re.DOTALL)
    (tmp_path / "open.yaml").write_text(text)
    done = compose("-f", "docker-compose.yml", "-f", str(tmp_path / "open.yaml"), "config")
    assert done.returncode == 0, done.stderr
    assert 'published: "8443"' in done.stdout


def test_every_network_ends_at_the_gate_and_leads_nowhere_else():
    """What `tests/federation/test_walls.py` proves by trying, where it cannot run."""
    file = load(ROOT / "docker-compose.yml")
    members = {
        name: {service for service, about in file["services"].items() if name in about["networks"]}
        for name in file["networks"]
    }
    assert all(about == {"internal": True} for about in file["networks"].values())
    assert all(len(found) == 2 and "gate" in found for found in members.values()), members
    assert file["services"]["gate"]["sysctls"] == {"net.ipv4.ip_forward": "0"}
    for about in file["services"].values():
        assert (about["cap_drop"], about["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
        assert "ports" not in about


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="HAProxy is not installed")
def test_haproxy_takes_the_gates_file(tmp_path):
    text = (ROOT / "server" / "gate.cfg").read_text()
    (tmp_path / "gate.cfg").write_text(text.replace("coordinator.inside", "127.0.0.1"))
    done = subprocess.run(
        ["haproxy", "-c", "-f", tmp_path / "gate.cfg"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


@pytest.mark.parametrize("side", ["client", "server"])
def test_an_image_can_be_built_of_cpu_builds(side):
    text = (ROOT / side / "Dockerfile").read_text()
    assert "pip install --no-cache-dir $PIP_OPTIONS ./common" in text
    build = load(ROOT / "docker-compose.yml")["services"]["coordinator" if side == "server" else "alder"]["build"]
    assert build["args"]["PIP_OPTIONS"] == "${PIP_OPTIONS:-}"
