"""Packages over bad lines: cut at every tenth, slow as a modem, silent for a while; each arrives once, whole."""

import errno
import hashlib
import pathlib
import secrets
import threading
import time

import pytest
from support.enrolment import enrol_site, keep_grant
from support.links import Link
from support.plans import small_plan

from sfumato_client.egress import upload
from sfumato_common.crypto.identity import create_identity
from sfumato_common.errors import FederationError
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.enrol import Registry, create_authority
from sfumato_server.intake import IntakeCredentials, IntakeServer, calls, service

SITE = "alder"
MODEM, LATE_S = 7000.0, 0.3  # 56 kbit/s


@pytest.fixture
def intake(tmp_path, monkeypatch):
    """An intake that takes any bytes for a package, and what the site sends by; what is in one is tested elsewhere."""
    plan = parse(small_plan(released="spectral", sites={SITE: 100}), Plan, "plan")
    monkeypatch.setattr(service, "largest_package", lambda plan: 10**7)
    authority = create_authority(tmp_path / "coordinator")
    identity = create_identity(tmp_path / "site" / "identity", SITE)
    grant = keep_grant(tmp_path / "coordinator", identity, enrol_site(tmp_path / "coordinator", identity))
    credentials = IntakeCredentials(
        authority.server_key_path.read_bytes(), authority.server_certificate_path.read_bytes(), authority.ca_pem
    )
    stored = []
    monkeypatch.setattr(
        service.IntakeService, "_store", lambda self, record, partial: stored.append(partial.path.read_bytes())
    )
    server = IntakeServer(
        tmp_path / "coordinator", plan, Registry(tmp_path / "coordinator"), "127.0.0.1:0", credentials
    )
    port = int(server.start().rpartition(":")[2])

    def send(address, data, timeout):
        upload.upload_package(
            address, data, ca_pem=grant.authority, certificate_pem=grant.certificate, key_pem=identity.tls_key_pem,
            site=SITE, plan_hash=plan.digest, timeout=timeout,
        )  # fmt: skip

    yield port, send, stored
    server.stop(0.2)


@pytest.mark.parametrize("tenth", range(1, 11))
def test_an_upload_that_is_cut_at_any_tenth_arrives_whole(intake, tenth):
    port, send, stored = intake
    data = secrets.token_bytes(400_000)
    with Link(("127.0.0.1", port)) as link:
        link.break_after = tenth * len(data) // 10
        send(f"127.0.0.1:{link.port}", data, 20.0)
        assert link.broken == 1
    assert [hashlib.sha256(found).digest() for found in stored] == [hashlib.sha256(data).digest()]


@pytest.mark.slow
def test_a_package_arrives_by_modem_however_long_it_takes(intake):
    """It takes longer than the site's patience, than the intake's for a message, and than that for a slow stream."""
    port, send, stored = intake
    data = secrets.token_bytes(350_000)
    with Link(("127.0.0.1", port), MODEM, LATE_S) as link:
        began = time.monotonic()
        send(f"127.0.0.1:{link.port}", data, 20.0)
    assert time.monotonic() - began > max(calls.IDLE_S, calls.GRACE_S, len(data) / MODEM)
    assert stored == [data]


@pytest.mark.slow
def test_a_line_that_is_cut_in_mid_upload_is_waited_for_and_then_given_up(intake):
    port, send, stored = intake
    data = secrets.token_bytes(350_000)
    with Link(("127.0.0.1", port), 20 * MODEM) as link:
        threading.Timer(1.0, link.cut).start()
        threading.Timer(40.0, link.mend).start()  # longer than the intake takes a line for alive
        send(f"127.0.0.1:{link.port}", data, 60.0)
        assert stored == [data]
        link.cut()
        with pytest.raises(FederationError, match="not reached in time"):
            send(f"127.0.0.1:{link.port}", secrets.token_bytes(1000), 3.0)


def test_an_intake_whose_disk_is_full_is_asked_again_and_not_taken_for_a_refusal(intake, monkeypatch):
    port, send, stored = intake
    data, full, sync = secrets.token_bytes(100_000), [True] * 3, pathlib.Path.open

    def open_full(path, mode="r", *rest, **named):
        if mode == "ab" and full:
            full.pop()
            raise OSError(errno.ENOSPC, "No space left on device")
        return sync(path, mode, *rest, **named)

    monkeypatch.setattr(pathlib.Path, "open", open_full)
    send(f"127.0.0.1:{port}", data, 20.0)
    assert stored == [data] and not full
