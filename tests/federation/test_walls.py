"""The walls of docker-compose.yml, each route tried: its networks out of namespaces, and in them the real programs."""

import copy
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.namespaces import REASON, Networks, load, possible
from support.processes import PROGRAMS, SMALL_PLAN, SMALL_POLICY, wait_for, write_configs

from sfumato_server.publish import verify_dataset

ROOT = Path(__file__).resolve().parents[2]
SITES = ("alder", "birch", "cedar")
ELSEWHERE = "192.0.2.1"  # RFC 5737: nobody's

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or not possible(), reason=REASON),
    pytest.mark.timeout(1500),
]
LISTEN = """
import socket
with socket.create_server(("0.0.0.0", 8443)) as one:
    print("listens", flush=True)
    while True:
        one.accept()[0].close()
"""


@pytest.fixture
def compose():
    return load(ROOT / "docker-compose.yml")


def reached(nets):
    """(from, to) of every two services of which the first gets through to the second, who both listen at all places."""
    listeners = [
        subprocess.Popen(nets.command(service, sys.executable, "-c", LISTEN), stdout=subprocess.PIPE)
        for service in nets.address
    ]
    try:
        assert all(process.stdout.readline() == b"listens\n" for process in listeners)
        return {
            (one, other)
            for one in nets.address
            for other, places in nets.address.items()
            if one != other and any("open" in nets.met(one, place, seconds=0.3).values() for place in places.values())
        }
    finally:
        for process in listeners:
            process.kill()
            process.wait(10)


BESIDE_THE_GATE = {("coordinator", "gate"), ("gate", "coordinator")}
BESIDE_THE_GATE |= {pair for site in SITES for pair in ((site, "gate"), ("gate", site))}


def test_whatever_listens_everyone_meets_the_gate_alone(compose, tmp_path):
    with Networks(compose, tmp_path) as nets:
        assert reached(nets) == BESIDE_THE_GATE
        for service in nets.address:
            assert nets.met(service, ELSEWHERE) == {8443: "ENETUNREACH"}
            assert not nets.inside(service, "ip", "route", "show", "default")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("service", "network", "more"),
    [
        ("alder", "birch", {("alder", "birch"), ("birch", "alder")}),
        ("cedar", "inside", {("cedar", "coordinator"), ("coordinator", "cedar")}),
    ],
)
def test_a_network_that_two_sides_share_is_seen(compose, tmp_path, service, network, more):
    compose["services"][service]["networks"].append(network)
    with Networks(compose, tmp_path) as nets:
        assert reached(nets) == BESIDE_THE_GATE | more


@pytest.mark.parametrize("forwards", [False, True])
def test_a_hospital_that_writes_routes_gets_no_further_because_the_gate_forwards_nothing(compose, tmp_path, forwards):
    """With forwarding on, as containers get it from a Docker host, the same routes lead to the coordinator."""
    changed = copy.deepcopy(compose)
    if forwards:
        del changed["services"]["gate"]["sysctls"]
    with Networks(changed, tmp_path) as nets:
        at = nets.address
        nets.inside("alder", "ip", "route", "add", at["coordinator"]["inside"], "via", at["gate"]["alder"])
        nets.inside("alder", "ip", "route", "add", at["birch"]["birch"], "via", at["gate"]["alder"])
        nets.inside("coordinator", "ip", "route", "add", at["alder"]["alder"], "via", at["gate"]["inside"])
        nets.inside("birch", "ip", "route", "add", at["alder"]["alder"], "via", at["gate"]["birch"])
        through = {("alder", "coordinator"), ("alder", "birch"), ("coordinator", "alder"), ("birch", "alder")}
        assert reached(nets) == (BESIDE_THE_GATE | through if forwards else BESIDE_THE_GATE)


class Containers:
    """The services of the compose file with real programs in them; stopped at the end, by their own process groups."""

    def __init__(self, nets, folder, configs):
        self.nets, self.folder, self.configs, self.running = nets, folder, configs, {}

    def volume(self, name):
        (self.folder / "volumes" / name).mkdir(parents=True, exist_ok=True)
        return self.folder / "volumes" / name

    def start(self, service):
        about = self.nets.compose["services"][service]
        if "build" in about:
            side = Path(about["build"]["dockerfile"]).parent
            (script,) = (ROOT / side).glob("compose-*.sh")
            program = ["/bin/sh", str(script)]
            mounts = {
                target: self.volume(name) for name, _, target in (line.partition(":") for line in about["volumes"])
            }
            mounts["/home/sfumato/configs"] = self.configs
        else:
            program = [shutil.which("haproxy"), "-db", "-f", str(ROOT / "server" / "gate.cfg")]
            assert about["command"][:3] == ["haproxy", "-db", "-f"]
            mounts = {"/home/sfumato": self.volume("none")}
        environment = {
            "PATH": f"{PROGRAMS}:/usr/sbin:/usr/bin:/bin",
            "PATIENTS": "60",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
            "PYTHONSAFEPATH": "1",
            **about.get("environment", {}),
        }
        log = (self.folder / f"{service}.log").open("wb")
        self.running[service] = subprocess.Popen(
            self.nets.as_container(service, program, mounts),
            env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def said(self):
        logs = {service: (self.folder / f"{service}.log").read_text() for service in self.running}
        return "\n".join(f"--- {service}\n{text}" for service, text in logs.items())

    def stop(self):
        for process in self.running.values():
            if process.poll() is None:
                os.killpg(process.pid, 15)
        end = time.monotonic() + 30
        for process in self.running.values():
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait(10)


def peers(nets, service):
    """(listening beyond loopback, where connections of the service's programs lead beyond loopback), as addresses."""
    lines = [line.split() for line in nets.inside(service, "ss", "-Htan").splitlines()]
    beyond = [line for line in lines if not line[3].startswith(("127.", "[::1]", "[::ffff:127."))]
    listening = {int(line[3].rpartition(":")[2]) for line in beyond if line[0] == "LISTEN"}
    return listening, {line[4] for line in beyond if line[0] != "LISTEN"}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("haproxy") is None, reason="the gate is Debian's haproxy")
def test_a_study_runs_within_the_walls_over_one_port(compose, tmp_path):
    """The entry scripts of the images run a study to its published set; meanwhile every other route is tried."""
    configs = write_configs(tmp_path / "configs", {**SMALL_PLAN, "study": "walls"}, SMALL_POLICY)
    with Networks(compose, tmp_path) as nets:
        containers, at = Containers(nets, tmp_path, configs), nets.address
        try:
            for service in compose["services"]:
                containers.start(service)
            status = containers.volume("coordinator") / "coordinator" / "status.json"
            joined = lambda: all("joined" in state(containers, site) for site in SITES)  # noqa: E731
            assert wait_for(joined, 600), containers.said()
            for site in SITES:
                assert nets.open_at(site, at["gate"][site]) == {8443}
                assert nets.open_at("gate", at[site][site]) == set(), "nothing of a hospital listens beyond it"
                listening, leads = peers(nets, site)
                assert listening == set()
                assert leads == {f"{at['gate'][site]}:8443"}
                others = [place for other in {"coordinator", *SITES} - {site} for place in at[other].values()]
                assert {word for place in others for word in nets.met(site, place).values()} == {"ENETUNREACH"}
                assert nets.met("coordinator", at[site][site]) == {8443: "ENETUNREACH"}
            assert nets.open_at("gate", at["coordinator"]["inside"]) == {8443}
            assert peers(nets, "coordinator")[0] == {8443}
            assert status.is_file()
            code = containers.running["coordinator"].wait(600)
            assert code == 0, containers.said()
        finally:
            containers.stop()
    assert verify_dataset(containers.volume("published") / "published").images > 0


def state(containers, site):
    file = containers.volume(site) / "site" / "node.json"
    return file.read_text() if file.is_file() else ""
