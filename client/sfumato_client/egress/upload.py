"""Sends a sealed package to the coordinator's intake: TLS on both sides, in chunks, resumed after a break.

It sees the package's bytes only, and sends nothing else but their size, hash, site name and plan hash.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from typing import Any

import grpc

from sfumato_common.crypto.certificates import common_name, load_certificate
from sfumato_common.errors import EgressRefused, FederationError, SfumatoError, VerificationError
from sfumato_common.protocol import intake_pb2, intake_pb2_grpc

# small enough to arrive over 56 kbit/s before the intake takes the line for dead
CHUNK = 32 * 1024
# one call of the stream; on a slow line the next one goes on
LONGEST_CALL_S = 60.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
# the last one: the intake has its hands full, with others or with this site's own older call
RETRIED = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
RETRIED_CODES = {"begin-first", "incomplete", "wrong-hash"}


def upload_package(
    address: str,
    data: bytes,
    *,
    ca_pem: bytes,
    certificate_pem: bytes,
    key_pem: bytes,
    site: str,
    plan_hash: str,
    timeout: float,
) -> None:
    """Deliver `data` to the intake at `address` (host:port), resuming as often as needed.

    It is given up when nothing more of it has arrived for `timeout` seconds, however slow the line is. Returns when the
    coordinator has verified and stored it (also when it had it already). Raises EgressRefused when nothing may be sent,
    VerificationError when the coordinator found the package bad, FederationError when it does not admit this site or
    cannot be reached in time.
    """
    if not data:
        raise EgressRefused("the package is empty; nothing was sent")
    if common_name(load_certificate(certificate_pem)) != site:
        raise EgressRefused("the certificate is another site's; nothing was sent")
    credentials = grpc.ssl_channel_credentials(ca_pem, key_pem, certificate_pem)
    arrival, pause = _Arrival(timeout), FIRST_PAUSE_S
    while True:
        with grpc.secure_channel(address, credentials, options=channel_options(address)) as channel:
            try:
                return _deliver(_stub(channel), data, site, plan_hash, arrival)
            except grpc.RpcError as error:
                _raise_if_final(error, address)
        if arrival.left() <= pause:
            raise FederationError(f"intake {address}: not reached in time; check the address and the network")
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)


class _Arrival:
    """How much has arrived, and how long more of it is waited for."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s, self._most = patience_s, 0
        self._end = time.monotonic() + patience_s

    def note(self, offset: int) -> None:
        """So much lies at the intake."""
        if offset > self._most:
            self._most, self._end = offset, time.monotonic() + self._patience_s

    def left(self) -> float:
        """Seconds; never quite none, as gRPC takes 0 for no limit."""
        return max(self._end - time.monotonic(), 0.001)


def _stub(channel: Any) -> Any:
    return intake_pb2_grpc.IntakeStub(channel)  # type: ignore[no-untyped-call]


def _deliver(stub: Any, data: bytes, site: str, plan_hash: str, arrival: _Arrival) -> None:
    """One attempt: announce, send what is missing, commit."""
    begin = intake_pb2.BeginRequest(
        site=site, plan_hash=plan_hash, size=len(data), sha256=hashlib.sha256(data).hexdigest()
    )
    reply = stub.Begin(begin, timeout=arrival.left())
    arrival.note(reply.offset)
    if reply.offset < len(data):
        # half of what is left: a call that ends for want of time leaves some to hear what arrived
        wanted = min(arrival.left() / 2, LONGEST_CALL_S)
        arrival.note(stub.Upload(_chunks(data, reply.upload_id, reply.offset), timeout=wanted).offset)
    stub.Commit(intake_pb2.CommitRequest(upload_id=reply.upload_id), timeout=arrival.left())


def _chunks(data: bytes, upload_id: str, start: int) -> Iterator[Any]:
    for offset in range(start, len(data), CHUNK):
        yield intake_pb2.Chunk(upload_id=upload_id, offset=offset, data=data[offset : offset + CHUNK])


def channel_options(address: str) -> list[tuple[str, int]]:
    """A proxy in the environment is for the outside world, not for this machine's own ports."""
    local = address.rpartition(":")[0].strip("[]") in {"localhost", "127.0.0.1", "::1"}
    return [("grpc.enable_http_proxy", 0)] if local else []


def _raise_if_final(error: Any, address: str) -> None:
    """Turn a refusal that no repetition can change into the project's own error."""
    status, code = error.code(), str(error.details() or "")
    if "CERTIFICATE_VERIFY_FAILED" in code:
        raise FederationError(
            f"intake {address}: its certificate is not this federation's; check the address"
        ) from None
    if "Hostname Verification Check failed" in code:
        raise FederationError(
            f"intake {address}: its certificate is not made out to that name; use a name that the coordinator gave"
        ) from None
    if status in RETRIED or code in RETRIED_CODES:
        return
    if status is not grpc.StatusCode.DEADLINE_EXCEEDED:
        raise _refusal(status, code) from None


def _refusal(status: grpc.StatusCode, code: str) -> SfumatoError:
    # the text is the coordinator's: only a short code is let through
    short = code if len(code) <= 32 and code.replace("-", "").isalnum() else "unknown"
    match status:
        case grpc.StatusCode.PERMISSION_DENIED | grpc.StatusCode.UNAUTHENTICATED:
            return FederationError(f"the coordinator does not admit this site ({short}); ask the coordinator")
        case grpc.StatusCode.ALREADY_EXISTS:
            return EgressRefused("the coordinator already holds another package of this site for this plan")
        case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.DATA_LOSS:
            return VerificationError(f"the coordinator refused the package ({short}); build it again for this plan")
        case _:
            return FederationError(f"the intake failed ({short}); ask the coordinator to look at its log")
