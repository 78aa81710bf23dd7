import hashlib
import logging
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.enrolment import enrol_site

from sfumato_client.egress import upload
from sfumato_common.crypto.identity import create_identity
from sfumato_common.errors import BusyError, EgressRefused, FederationError, VerificationError
from sfumato_common.protocol import intake_pb2, intake_pb2_grpc
from sfumato_server.enrol import create_authority, revoke
from sfumato_server.intake import IntakeCredentials, IntakeServer, service


def server_for(consortium: Any, address: str = "127.0.0.1:0") -> IntakeServer:
    authority = consortium.authority
    credentials = IntakeCredentials(
        authority.server_key_path.read_bytes(), authority.server_certificate_path.read_bytes(), authority.ca_pem
    )
    return IntakeServer(consortium.home, consortium.plan, consortium.registry, address, credentials)


@pytest.fixture
def running(consortium: Any) -> Iterator[tuple[Any, IntakeServer, str]]:
    server = server_for(consortium)
    address = server.start()
    yield consortium, server, address
    server.stop(0.2)


def send(consortium: Any, address: str, data: bytes, site: str = "north", **changes: Any) -> None:
    grant = consortium.grants[site]
    values: dict[str, Any] = {
        "ca_pem": grant.authority,
        "certificate_pem": grant.certificate,
        "key_pem": consortium.identities[site].tls_key_pem,
        "site": site,
        "plan_hash": consortium.plan.digest,
        "timeout": 10.0,
    }
    upload.upload_package(address, data, **{**values, **changes})


def stub_for(consortium: Any, address: str, site: str = "north") -> Any:
    grant = consortium.grants[site]
    credentials = grpc.ssl_channel_credentials(
        grant.authority, consortium.identities[site].tls_key_pem, grant.certificate
    )
    return intake_pb2_grpc.IntakeStub(grpc.secure_channel(address, credentials))


def announcement(consortium: Any, data: bytes, **changes: Any) -> Any:
    values = {"site": "north", "plan_hash": consortium.plan.digest, "size": len(data)}
    return intake_pb2.BeginRequest(**{**values, "sha256": hashlib.sha256(data).hexdigest(), **changes})


def partials(consortium: Any) -> list[Path]:
    return list((consortium.home / "intake" / ".partial").iterdir())


def test_a_package_arrives_once_and_the_same_again_is_harmless(running: Any) -> None:
    consortium, server, address = running
    data = consortium.package("north")
    assert server.received_sites() == ()
    send(consortium, address, data)
    send(consortium, address, data)
    assert (consortium.home / "intake" / "north.formal.sfumato").read_bytes() == data
    assert server.received_sites() == ("north",)
    assert partials(consortium) == []


def test_a_second_different_package_is_refused(running: Any) -> None:
    consortium, _, address = running
    data = consortium.package("north")
    send(consortium, address, data)
    with pytest.raises(EgressRefused, match="another package"):
        send(consortium, address, consortium.package("north", images=consortium.images(99)))
    assert (consortium.home / "intake" / "north.formal.sfumato").read_bytes() == data


def test_a_package_of_an_earlier_plan_gives_way(running: Any, make_plan: Any) -> None:
    consortium, _, address = running
    path = consortium.home / "intake" / "north.formal.sfumato"
    path.write_bytes(consortium.package("north", plan_hash=make_plan(study="older").digest))
    data = consortium.package("north")
    send(consortium, address, data)
    assert path.read_bytes() == data


@pytest.mark.parametrize(
    "changes",
    [
        {"images": 5},
        {"images": 7},
        {"size": 32},
        {"label": "unheard-of"},
        {"model": "gan"},
        {"method": "cadp"},
        {"study": "knee"},
        {"site": "south"},
        {"plan_hash": "0" * 64},
    ],
)
def test_what_the_plan_did_not_ask_for_is_refused(running: Any, changes: dict[str, Any]) -> None:
    consortium, _, address = running
    images = consortium.images(3, changes.pop("images", 6), changes.pop("size", 16))
    fields = {key: changes.pop(key) for key in list(changes) if key in ("label", "model", "method")}
    images[0] = replace(images[0], facts=images[0].facts.model_copy(update=fields))
    with pytest.raises(VerificationError):
        send(consortium, address, consortium.package("north", images=images, **changes))
    assert not (consortium.home / "intake" / "north.formal.sfumato").exists()
    assert partials(consortium) == []


def test_altered_and_foreign_signed_packages_are_refused(running: Any) -> None:
    consortium, _, address = running
    data = bytearray(consortium.package("north"))
    data[len(data) // 2] ^= 1
    with pytest.raises(VerificationError):
        send(consortium, address, bytes(data))
    forged = consortium.package("north", sign=consortium.identities["south"].sign_package)
    with pytest.raises(VerificationError):
        send(consortium, address, forged)
    assert not (consortium.home / "intake" / "north.formal.sfumato").exists()


def test_after_a_refused_package_the_right_one_is_taken(running: Any) -> None:
    consortium, _, address = running
    with pytest.raises(VerificationError):
        send(consortium, address, b"nonsense")
    send(consortium, address, consortium.package("north"))


def test_a_broken_upload_resumes_where_it_stood(running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    consortium, _, address = running
    data = consortium.package("north")
    stub, begin = stub_for(consortium, address), announcement(consortium, data)
    first = stub.Begin(begin)
    assert first.offset == 0
    half = intake_pb2.Chunk(upload_id=first.upload_id, offset=0, data=data[: len(data) // 2])

    def breaks() -> Iterator[Any]:
        yield half
        deadline = time.monotonic() + 10
        while stub.Begin(begin).offset == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        raise ConnectionError("cable pulled")

    with pytest.raises(grpc.RpcError):
        stub.Upload(breaks())
    assert stub.Begin(begin).offset == len(data) // 2
    sent: list[int] = []
    chunks = upload._chunks
    monkeypatch.setattr(upload, "_chunks", lambda *given: (sent.append(c.offset) or c for c in chunks(*given)))
    send(consortium, address, data)
    assert sent[0] == len(data) // 2


def test_an_upload_resumes_after_the_coordinator_restarted(consortium: Any) -> None:
    data = consortium.package("north")
    begin = announcement(consortium, data)
    server = server_for(consortium)
    stub = stub_for(consortium, server.start())
    chunk = intake_pb2.Chunk(upload_id=stub.Begin(begin).upload_id, offset=0, data=data[:500])
    assert stub.Upload(iter([chunk])).offset == 500
    server.stop(0.2)
    second = server_for(consortium)
    address = second.start()
    try:
        assert stub_for(consortium, address).Begin(begin).offset == 500
        send(consortium, address, data)
    finally:
        second.stop(0.2)
    assert (consortium.home / "intake" / "north.formal.sfumato").read_bytes() == data


def test_the_client_waits_for_a_coordinator_that_starts_late(consortium: Any) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    server = server_for(consortium, address)
    timer = threading.Timer(1.0, server.start)
    timer.start()
    try:
        send(consortium, address, consortium.package("north"))
    finally:
        timer.join()
        server.stop(0.2)


def test_an_unreachable_coordinator_is_one_clear_error(consortium: Any) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(FederationError, match="not reached in time"):
        send(consortium, address, consortium.package("north"), timeout=1.0)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"site": "south"}, grpc.StatusCode.PERMISSION_DENIED, "wrong-site"),
        ({"plan_hash": "0" * 64}, grpc.StatusCode.INVALID_ARGUMENT, "wrong-plan"),
        ({"size": 1 << 40}, grpc.StatusCode.INVALID_ARGUMENT, "too-large"),
        ({"size": 0}, grpc.StatusCode.INVALID_ARGUMENT, "too-large"),
        ({"sha256": "../../etc/passwd"}, grpc.StatusCode.INVALID_ARGUMENT, "bad-hash"),
    ],
)
def test_bad_announcements_are_refused(running: Any, changes: dict[str, Any], status: Any, code: str) -> None:
    consortium, _, address = running
    with pytest.raises(grpc.RpcError) as caught:
        stub_for(consortium, address).Begin(announcement(consortium, b"x", **changes))
    assert (caught.value.code(), caught.value.details()) == (status, code)
    assert partials(consortium) == []


def test_bad_chunks_are_refused(running: Any) -> None:
    consortium, _, address = running
    data = consortium.package("north")
    stub = stub_for(consortium, address)
    upload_id = stub.Begin(announcement(consortium, data)).upload_id
    for chunk, code in (
        ({"offset": 5, "data": b"x"}, "wrong-offset"),
        ({"offset": 0, "data": b""}, "bad-chunk"),
        ({"offset": 0, "data": bytes(service.LARGEST_CHUNK + 1)}, "bad-chunk"),
        ({"offset": 0, "data": data + b"x"}, "wrong-offset"),
        ({"offset": 0, "data": b"x", "upload_id": "f" * 32}, "begin-first"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            stub.Upload(iter([intake_pb2.Chunk(**{"upload_id": upload_id, **chunk})]))
        assert caught.value.details() == code
    with pytest.raises(grpc.RpcError) as caught:
        stub.Commit(intake_pb2.CommitRequest(upload_id=upload_id))
    assert caught.value.details() == "incomplete"


def test_a_site_cannot_touch_another_sites_upload(running: Any) -> None:
    consortium, _, address = running
    data = consortium.package("north")
    upload_id = stub_for(consortium, address).Begin(announcement(consortium, data)).upload_id
    other = stub_for(consortium, address, "south")
    with pytest.raises(grpc.RpcError) as caught:
        other.Upload(iter([intake_pb2.Chunk(upload_id=upload_id, offset=0, data=b"x")]))
    assert caught.value.details() == "begin-first"
    with pytest.raises(grpc.RpcError):
        other.Commit(intake_pb2.CommitRequest(upload_id=upload_id))


def test_a_certificate_of_a_foreign_ca_does_not_get_in(running: Any, tmp_path: Path) -> None:
    consortium, _, address = running
    create_authority(tmp_path / "foreign")
    foreign = enrol_site(tmp_path / "foreign", consortium.identities["north"])
    data = consortium.package("north")
    with pytest.raises(FederationError):
        send(consortium, address, data, certificate_pem=foreign.certificate, timeout=1.0)
    with pytest.raises(FederationError, match="not this federation's"):
        send(consortium, address, data, ca_pem=foreign.authority)
    assert not (consortium.home / "intake" / "north.formal.sfumato").exists()


def test_no_certificate_does_not_get_in(running: Any) -> None:
    consortium, _, address = running
    channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(consortium.authority.ca_pem))
    with pytest.raises(grpc.RpcError) as caught:
        intake_pb2_grpc.IntakeStub(channel).Begin(announcement(consortium, b"x"), timeout=3)
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_revoked_and_unregistered_sites_are_refused(running: Any, tmp_path: Path) -> None:
    consortium, _, address = running
    data = consortium.package("north")
    outsider = create_identity(tmp_path / "west", "west")
    consortium.identities["west"] = outsider
    consortium.grants["west"] = enrol_site(consortium.home, outsider)
    with pytest.raises(FederationError, match="not-in-study"):
        send(consortium, address, data, "west")
    revoke(consortium.home, "north")
    with pytest.raises(FederationError, match="not-enrolled"):
        send(consortium, address, data)
    sites = consortium.home / "sites.json"
    sites.write_text(sites.read_text().replace('"north"', '"nowhere"'))
    with pytest.raises(FederationError, match="not-enrolled"):
        send(consortium, address, data)


def test_revocation_in_the_middle_stops_the_commit(running: Any) -> None:
    consortium, _, address = running
    data = consortium.package("north")
    stub = stub_for(consortium, address)
    upload_id = stub.Begin(announcement(consortium, data)).upload_id
    stub.Upload(iter([intake_pb2.Chunk(upload_id=upload_id, offset=0, data=data)]))
    revoke(consortium.home, "north")
    with pytest.raises(grpc.RpcError) as caught:
        stub.Commit(intake_pb2.CommitRequest(upload_id=upload_id))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_the_client_sends_nothing_wrong_in_the_first_place(consortium: Any) -> None:
    with pytest.raises(EgressRefused):
        send(consortium, "127.0.0.1:1", b"")
    with pytest.raises(EgressRefused, match="another site"):
        send(consortium, "127.0.0.1:1", b"x", site="south", certificate_pem=consortium.grants["north"].certificate)


def test_a_port_in_use_is_one_clear_line(running: Any, capfd: pytest.CaptureFixture[str]) -> None:
    consortium, _, address = running
    with pytest.raises(BusyError, match=address):
        server_for(consortium, address).start()
    # gRPC would print its own account of it
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:http", "127.0.0.1:99999999", "192.0.2.1:5000"])
def test_an_address_that_cannot_be_bound_is_one_clear_line(consortium: Any, address: str) -> None:
    with pytest.raises(BusyError, match="cannot listen"):
        server_for(consortium, address).start()


def test_a_stopped_server_frees_its_port_and_may_start_again(consortium: Any) -> None:
    first = server_for(consortium)
    address = first.start()
    first.stop(0.2)
    first.stop()
    second = server_for(consortium, address)
    assert second.start() == address
    send(consortium, address, consortium.package("north"))
    second.stop(0.2)


def test_an_exceptions_text_never_reaches_the_caller(
    running: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    consortium, _, address = running

    def fails(*_: Any) -> None:
        raise OSError("/home/coordinator/secret-path")

    monkeypatch.setattr(service, "write_atomic", fails)
    data = consortium.package("north")
    stub = stub_for(consortium, address)
    upload_id = stub.Begin(announcement(consortium, data)).upload_id
    stub.Upload(iter([intake_pb2.Chunk(upload_id=upload_id, offset=0, data=data)]))
    with caplog.at_level(logging.ERROR), pytest.raises(grpc.RpcError) as caught:
        stub.Commit(intake_pb2.CommitRequest(upload_id=upload_id))
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INTERNAL, "failed")
    assert "secret-path" in caplog.text


def test_a_stalled_sender_is_cut_off(running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    consortium, _, address = running
    monkeypatch.setattr(service, "STREAM_DEADLINE_S", 0.3)
    data = consortium.package("north")
    stub = stub_for(consortium, address)
    upload_id = stub.Begin(announcement(consortium, data)).upload_id
    stop = threading.Event()

    def stalls() -> Iterator[Any]:
        yield intake_pb2.Chunk(upload_id=upload_id, offset=0, data=data[:10])
        stop.wait(10)

    started = time.monotonic()
    with pytest.raises(grpc.RpcError):
        stub.Upload(stalls(), timeout=8)
    stop.set()
    assert time.monotonic() - started < 4
