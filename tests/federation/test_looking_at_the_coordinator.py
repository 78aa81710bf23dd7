"""What `sfumato-site check` says of a coordinator: a real one behind its one port, and all that may be in the way."""

from __future__ import annotations

import datetime as dates
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from support.enrolment import enrol_site, keep_grant
from support.homes import make_home
from support.proxies import proxy_at_work
from support.studies import PLAN, POLICY
from support.superlinks import AtWork, coordinator_at_work

from sfumato_client.egress.reaching import Reached, reach
from sfumato_client.egress.supernode import SuperNodeSettings
from sfumato_client.egress.unreached import CLOCK_S
from sfumato_client.site.checks import Subject, look
from sfumato_client.site.home import ADDRESS_FILE
from sfumato_common.crypto.identity import create_identity
from sfumato_common.files import write_json
from sfumato_common.locks import exclusive
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.supervise import free_port
from sfumato_server.coordinator.door import Behind, Door
from sfumato_server.enrol import Registry, create_authority, revoke
from sfumato_server.intake import IntakeCredentials, IntakeServer

FAR = "coordinator.example"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return parse(PLAN, Plan, "plan")


@pytest.fixture(scope="module")
def work(tmp_path_factory, plan: Plan) -> Iterator[tuple[AtWork, int]]:
    """A coordinator with SuperLink, front, intake and door, that knows the node of 'alder'; its one port."""
    with coordinator_at_work(tmp_path_factory.mktemp("work"), "alder", [FAR]) as work, at_the_door(work, plan) as port:
        work.control.register(work.identity.node_public, "alder")
        yield work, port


@contextmanager
def at_the_door(work: AtWork, plan: Plan) -> Iterator[int]:
    authority = work.authority
    own = authority.server_key_path.read_bytes(), authority.server_certificate_path.read_bytes(), authority.ca_pem
    registry, port = Registry(work.home.root), free_port()
    intake = IntakeServer(work.home.root, plan, registry, "127.0.0.1:0", IntakeCredentials(*own), lambda: plan)
    door = Door(("127.0.0.1", port), Behind(int(intake.start().rpartition(":")[2]), work.port))
    door.start()
    try:
        yield port
    finally:
        door.stop()
        intake.stop()


def settings(work: AtWork, address: str, identity=None) -> SuperNodeSettings:
    folder = (identity or work.identity).folder
    return SuperNodeSettings(
        address, folder / "ca.crt", folder / "site.crt", folder / "tls.key", folder / "node.key",
        folder / "none", folder, folder, 0,
    )  # fmt: skip


def test_a_coordinator_that_is_well_is_joined_and_left_again_and_again(work):
    at, port = work
    for _ in range(3):  # a node that were not given back could not come again
        assert reach(settings(at, f"127.0.0.1:{port}")) == Reached("", 0.0)


def test_an_intake_that_is_not_reached_is_told_of(work):
    at, _ = work
    assert "by which releases travel" in reach(settings(at, f"127.0.0.1:{at.port}"), 2.0).problem  # no door before it


@pytest.mark.parametrize("ahead", [-8000.0, 8000.0])
def test_a_clock_that_is_refused_is_told_from_a_key_that_is(work, monkeypatch, ahead):
    from flwr.supernode import node_auth_http_interceptor as signing

    at, port = work
    moment = dates.timedelta(seconds=ahead)
    monkeypatch.setattr(signing, "now", lambda: dates.datetime.now(dates.UTC) + moment)
    found = reach(settings(at, f"127.0.0.1:{port}"), now=lambda: time.time() + ahead)
    assert "set this machine's clock" in found.problem
    assert found.ahead_s is not None
    assert abs(found.ahead_s - ahead) < 60.0
    assert abs(found.ahead_s) > CLOCK_S


def test_a_key_that_is_not_registered_and_one_that_was_revoked(work, tmp_path):
    at, port = work
    birch = create_identity(tmp_path / "birch" / "identity", "birch")
    keep_grant(at.home.root, birch, enrol_site(at.home.root, birch))
    mine = settings(at, f"127.0.0.1:{port}", birch)
    assert "does not know this site's key" in reach(mine).problem
    revoke(at.home.root, "birch")
    assert "refuses this site's certificate or node key" in reach(mine).problem


def test_certificates_of_others(work, tmp_path):
    at, port = work
    other = create_authority(tmp_path / "other")
    mine = settings(at, f"127.0.0.1:{port}")
    assert "not the federation's" in reach(replace(mine, ca_file=other.ca_path)).problem
    stranger = create_identity(tmp_path / "identity", "alder")
    keep_grant(tmp_path / "other", stranger, enrol_site(tmp_path / "other", stranger))
    theirs = replace(settings(at, f"127.0.0.1:{port}", stranger), ca_file=mine.ca_file)
    assert "takes no certificate of this site" in reach(theirs).problem


def test_a_name_that_the_certificate_lacks(work, monkeypatch):
    at, port = work
    with proxy_at_work({"elsewhere.example": port}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert "not made out to that name" in reach(settings(at, f"elsewhere.example:{port}")).problem


def test_what_is_in_the_way_of_the_line(work):
    at, _ = work
    assert "nothing listens there" in reach(settings(at, f"127.0.0.1:{free_port()}")).problem
    assert "its name is not known here" in reach(settings(at, "nowhere.invalid:8443")).problem
    with socket.create_server(("127.0.0.1", 0)) as silent:
        said = reach(settings(at, f"127.0.0.1:{silent.getsockname()[1]}"), 1.0).problem
    assert "have the firewall let this machine connect out" in said


def test_through_a_proxy_and_proxies_that_do_not_let_it_through(work, monkeypatch):
    at, port = work
    far = settings(at, f"{FAR}:{port}")
    with proxy_at_work({FAR: port}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        before = dict(os.environ)
        assert reach(far).problem == ""
        assert dict(os.environ) == before
        assert len(proxy.asked) >= 2  # the node's line and the intake's
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{free_port()}")
    assert "nothing listens where HTTPS_PROXY points" in reach(far).problem
    with proxy_at_work({}) as closed:
        monkeypatch.setenv("HTTPS_PROXY", closed.url)
        assert "does not let it through" in reach(far).problem


def test_the_command_s_line_and_a_node_that_runs(work, tmp_path, plan):
    at, port = work
    home = make_home(tmp_path / "alder", "alder", plan, POLICY, 40)
    for path in at.identity.folder.iterdir():
        if path.is_file():
            target = home.identity / path.name
            target.write_bytes(path.read_bytes())
            target.chmod(0o600)
    write_json(home.root / ADDRESS_FILE, {"coordinator": f"127.0.0.1:{port}"})

    def lines(**how) -> list[str]:
        return [f"{one.state}: {one.said}" for name, one in look(Subject(home, **how)) if name == "coordinator"]

    assert [line.split(":")[0] for line in lines()] == ["good", "good"]
    assert lines(reach=False) == ["skipped: the coordinator: left alone, as '--offline' says"]
    with exclusive(home.root, "the site"):
        assert "holds the line" in lines()[0]
