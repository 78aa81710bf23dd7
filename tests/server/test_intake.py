import contextlib
import hashlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.damaged import flipped
from support.enrolment import enrol_site
from support.tls import shake_hands, tls_context

from sfumato_client.egress import upload
from sfumato_common.crypto.identity import create_identity
from sfumato_common.errors import BusyError, EgressRefused, FederationError, VerificationError
from sfumato_common.protocol import intake_pb2, intake_pb2_grpc
from sfumato_common.study import shards
from sfumato_server.enrol import create_authority, revoke
from sfumato_server.intake import IntakeCredentials, IntakeServer, calls, service, stored
from sfumato_server.intake import server as server_module


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
    data = consortium.package("north")
    with pytest.raises(VerificationError):
        send(consortium, address, flipped(data, len(data) // 2))
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
        ({"size": 2**64 - 1}, grpc.StatusCode.INVALID_ARGUMENT, "too-large"),
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


def test_the_coordinators_own_certificate_is_no_sites(running: Any) -> None:
    consortium, _, address = running
    authority = consortium.authority
    key, certificate = authority.server_key_path.read_bytes(), authority.server_certificate_path.read_bytes()
    channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(authority.ca_pem, key, certificate))
    with pytest.raises(grpc.RpcError) as caught:
        intake_pb2_grpc.IntakeStub(channel).Begin(announcement(consortium, b"x"), timeout=3)
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.PERMISSION_DENIED)
    assert partials(consortium) == []


def test_a_site_cannot_play_the_intake_with_its_own_certificate(consortium: Any) -> None:
    east = consortium.identities["east"]
    own = IntakeCredentials(east.tls_key_pem, consortium.grants["east"].certificate, consortium.authority.ca_pem)
    server = IntakeServer(consortium.home, consortium.plan, consortium.registry, "127.0.0.1:0", own)
    try:
        with pytest.raises(FederationError):
            send(consortium, server.start(), consortium.package("north"), timeout=1.5)
    finally:
        server.stop(0.1)
    assert not (consortium.home / "intake" / "north.formal.sfumato").exists()


def test_a_call_larger_than_any_is_refused_before_it_is_read(running: Any) -> None:
    consortium, _, address = running
    stub = stub_for(consortium, address)
    with pytest.raises(grpc.RpcError) as long_request:
        stub.Begin(intake_pb2.BeginRequest(site="e" * (3 << 20)), timeout=5)
    with pytest.raises(grpc.RpcError) as long_header:
        stub.Begin(announcement(consortium, b"x"), metadata=[("x-a", "y" * 500_000)], timeout=5)
    codes = {caught.value.code() for caught in (long_request, long_header)}
    assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_tls_is_not_spoken(running: Any) -> None:
    consortium, _, address = running
    context = tls_context(consortium.identities["north"].folder)
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            shake_hands(context, int(address.rpartition(":")[2]), version)
    shake_hands(context, int(address.rpartition(":")[2]), ssl.TLSVersion.TLSv1_2)


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

    monkeypatch.setattr(service, "move_into_place", fails)
    data = consortium.package("north")
    stub = stub_for(consortium, address)
    upload_id = stub.Begin(announcement(consortium, data)).upload_id
    stub.Upload(iter([intake_pb2.Chunk(upload_id=upload_id, offset=0, data=data)]))
    with caplog.at_level(logging.ERROR), pytest.raises(grpc.RpcError) as caught:
        stub.Commit(intake_pb2.CommitRequest(upload_id=upload_id))
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INTERNAL, "failed")
    assert "secret-path" in caplog.text


def test_an_upload_that_is_cut_between_two_shards_goes_on_where_it_stood(
    consortium: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coordinator dies after the first shard, and again in the midst of the second: nothing is sent twice."""
    monkeypatch.setattr(shards, "MOST_IMAGES", 4)
    monkeypatch.setattr(upload, "CHUNK", 100)
    images = sorted(consortium.images(3), key=lambda image: image.facts.name)
    both = [
        consortium.package("north", images=images[at : at + 3], shard=number, shards=2)
        for number, at in ((1, 0), (2, 3))
    ]
    sent: list[int] = []
    chunks = upload._chunks
    monkeypatch.setattr(upload, "_chunks", lambda *given: (sent.append(len(one.data)) or one for one in chunks(*given)))
    for number in range(3):
        server = server_for(consortium)
        address = server.start()
        try:
            if number == 1:
                begin = announcement(consortium, both[1])
                stub = stub_for(consortium, address)
                half = intake_pb2.Chunk(upload_id=stub.Begin(begin).upload_id, offset=0, data=both[1][:1000])
                assert stub.Upload(iter([half])).offset == 1000
            else:
                # a site that begins again offers all of its shards, as it does not know what arrived
                for data in both if number else both[:1]:
                    send(consortium, address, data)
        finally:
            server.stop(0.2)
    assert sum(sent) == len(both[0]) + len(both[1]) - 1000
    stored = [consortium.home / "intake" / name for name in ("north.formal.sfumato", "north.formal.0002.sfumato")]
    assert [path.read_bytes() for path in stored] == both and partials(consortium) == []


def test_a_stalled_sender_is_cut_off(running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    consortium, _, address = running
    monkeypatch.setattr(calls, "IDLE_S", 0.3)
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
    assert stub.Begin(announcement(consortium, data)).offset == 10, "what arrived is kept"


def stall(call: Any, stop: threading.Event, first: Any = None) -> None:
    """Open a call and say nothing more."""

    def silent() -> Iterator[Any]:
        if first is not None:
            yield first
        stop.wait(30)

    def run() -> None:
        with contextlib.suppress(grpc.RpcError):
            call(silent(), timeout=25)

    threading.Thread(target=run, daemon=True).start()


def streams_of(consortium: Any, address: str, site: str) -> dict[str, Any]:
    """The intake's calls as streams, which is how a hostile site can open any of them and say nothing."""
    grant = consortium.grants[site]
    credentials = grpc.ssl_channel_credentials(
        grant.authority, consortium.identities[site].tls_key_pem, grant.certificate
    )
    replies = {"Begin": intake_pb2.BeginReply, "Upload": intake_pb2.UploadReply, "Commit": intake_pb2.CommitReply}
    channel = grpc.secure_channel(address, credentials, options=[("grpc.use_local_subchannel_pool", 1)])
    return {
        name: channel.stream_unary(
            f"/sfumato.intake.v1.Intake/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply.FromString,
        )
        for name, reply in replies.items()
    }


@pytest.mark.parametrize("name", ["Begin", "Upload", "Commit"])
def test_stalled_calls_of_one_site_do_not_keep_another_out(running: Any, name: str) -> None:
    consortium, _, address = running
    stop = threading.Event()
    for _ in range(8):  # connections, each with as many calls as it may have
        for _ in range(6):
            stall(streams_of(consortium, address, "east")[name], stop)
    time.sleep(1.0)
    started = time.monotonic()
    send(consortium, address, consortium.package("north"), timeout=20.0)
    assert time.monotonic() - started < 5.0
    # nor that site itself, once it behaves
    send(consortium, address, consortium.package("east"), "east", timeout=20.0)
    stop.set()


def test_a_new_stream_of_a_site_ends_its_older_one(running: Any) -> None:
    consortium, _, address = running
    data = consortium.package("north")
    stub, stop = stub_for(consortium, address), threading.Event()
    upload_id = stub.Begin(announcement(consortium, data)).upload_id
    ended: list[Any] = []

    def stalls() -> Iterator[Any]:
        yield intake_pb2.Chunk(upload_id=upload_id, offset=0, data=data[:10])
        stop.wait(20)

    def old() -> None:
        try:
            stub.Upload(stalls(), timeout=20)
        except grpc.RpcError as error:
            ended.append(error.code())

    thread = threading.Thread(target=old)
    thread.start()
    deadline = time.monotonic() + 5
    while stub.Begin(announcement(consortium, data)).offset == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    rest = intake_pb2.Chunk(upload_id=upload_id, offset=10, data=data[10:])
    assert stub_for(consortium, address).Upload(iter([rest])).offset == len(data)
    thread.join(5)
    stop.set()
    assert ended == [grpc.StatusCode.CANCELLED]


def test_a_crawling_or_silent_sender_is_told_from_a_slow_one() -> None:
    class Context:
        cut = 0

        def cancel(self) -> None:
            self.cut += 1

    now = [0.0]
    live = calls.Calls(lambda: now[0])
    ends = {rate: Context() for rate in (1, calls.LEAST_RATE // 2, 2 * calls.LEAST_RATE)}
    silent, working = Context(), Context()
    with contextlib.ExitStack() as stack:
        held = {rate: stack.enter_context(live.hold(str(rate), "Upload", end)) for rate, end in ends.items()}
        stack.enter_context(live.hold("silent", "Begin", silent))
        stack.enter_context(live.hold("working", "Commit", working)).complete()
        for _ in range(60):
            now[0] += 1.0
            for rate, call in held.items():
                call.brought(rate, now[0])
            live.cut_stalled()
    assert [bool(end.cut) for end in ends.values()] == [True, True, False]
    assert (bool(silent.cut), working.cut) == (True, 0)


def test_a_site_tries_again_when_the_intake_has_its_hands_full(running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    consortium, _, address = running
    begin, tries = service.IntakeService._begin, []

    def full(self: Any, record: Any, request: Any) -> Any:
        tries.append(record.site)
        if len(tries) < 4:
            raise service.RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")
        return begin(self, record, request)

    monkeypatch.setattr(service.IntakeService, "_begin", full)
    send(consortium, address, consortium.package("north"))
    assert len(tries) == 4


def test_commits_behind_a_long_verification_do_not_hold_workers(running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    consortium, _, address = running
    admit, entered, go_on = service.admit, threading.Event(), threading.Event()

    def slow(*given: Any) -> Any:
        entered.set()
        go_on.wait(20)
        return admit(*given)

    monkeypatch.setattr(service, "admit", slow)
    data = consortium.package("east")
    stub = stub_for(consortium, address, "east")
    upload_id = stub.Begin(announcement(consortium, data, site="east")).upload_id
    stub.Upload(iter([intake_pb2.Chunk(upload_id=upload_id, offset=0, data=data)]))
    commit = intake_pb2.CommitRequest(upload_id=upload_id)
    first = stub.Commit.future(commit)
    assert entered.wait(5)
    behind = [stub.Commit.future(commit) for _ in range(30)]
    codes = {waiting.exception(timeout=15).code() for waiting in behind}
    assert codes <= upload.RETRIED, "a site tries again after each of them"
    monkeypatch.setattr(service, "admit", admit)
    send(consortium, address, consortium.package("north"), timeout=5.0)
    go_on.set()
    first.exception(timeout=10)
    send(consortium, address, data, "east")


def test_a_stored_package_is_verified_once_and_again_when_the_file_or_the_key_is_another(
    consortium: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[str] = []
    admit = stored.admit
    monkeypatch.setattr(stored, "admit", lambda *given: (verified.append("once"), admit(*given))[1])
    path = consortium.home / "intake" / "north.formal.sfumato"
    path.parent.mkdir(exist_ok=True)
    data = consortium.package("north")
    path.write_bytes(data)
    record, known = consortium.registry.record_in_force("north"), stored.Stored(consortium.home, consortium.plan)
    for _ in range(50):
        assert known.digests(record) == {("formal", 1): hashlib.sha256(data).hexdigest()}
    assert len(verified) == 1
    path.write_bytes(flipped(data))
    assert known.digests(record) == known.digests(record) == {}
    assert len(verified) == 2
    path.write_bytes(data)
    other = replace(record, signing_key=consortium.registry.record_in_force("south").signing_key)
    assert known.digests(other) == {}
    path.unlink()
    assert known.digests(record) == {}


def test_what_was_just_stored_is_not_verified_again(running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    consortium, _, address = running
    monkeypatch.setattr(stored, "admit", lambda *_: pytest.fail("verified anew"))
    for _ in range(3):
        send(consortium, address, consortium.package("north"))


def test_a_connection_that_says_nothing_is_closed(consortium: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "HANDSHAKE_S", 1)
    server = server_for(consortium)
    host, _, port = server.start().rpartition(":")
    try:
        with contextlib.ExitStack() as stack:
            silent = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(40)]
            started = time.monotonic()
            send(consortium, f"{host}:{port}", consortium.package("north"), timeout=4.0)
            for connection in silent:
                connection.settimeout(6)
                # what the server says before it hangs up is of no interest
                with contextlib.suppress(ConnectionError):
                    while connection.recv(4096):
                        pass
            assert time.monotonic() - started < 5.0
    finally:
        server.stop(0.2)
