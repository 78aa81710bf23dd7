"""The gRPC service for signed packages: TLS on both sides, resumable, nothing stored before it is verified.

The caller is who its client certificate says it is: exactly the certificate that the registry holds. Refusals carry a
gRPC status and a short code; their reasons stand in the coordinator's own log. Every call is taken as a stream, also
those of one message: who calls is known before anything is waited for, and a site has one call of each kind.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc

from sfumato_common.errors import FederationError
from sfumato_common.files import file_sha256, move_into_place
from sfumato_common.protocol import intake_pb2
from sfumato_common.study.plan import Plan
from sfumato_common.study.shards import shards_at
from sfumato_server.enrol.registry import Registry, SiteRecord
from sfumato_server.intake.admission import FOLDER, admit, largest_package, package_path
from sfumato_server.intake.calls import Call, Calls
from sfumato_server.intake.guard import RefusedError, guard_method
from sfumato_server.intake.stored import Stored
from sfumato_server.intake.uploads import Partial, Partials

LARGEST_CHUNK = 1 << 20
_LOCK_S = 1.0

log = logging.getLogger(__name__)


class IntakeService:
    """The three calls of intake.proto; `current` is the plan as it stands, with sites that were admitted since."""

    def __init__(self, home: Path, plan: Plan, registry: Registry, current: Callable[[], Plan] | None = None) -> None:
        self._home, self._plan, self._registry = home, plan, registry
        self._current = current or (lambda: plan)
        self._largest = largest_package(plan)
        self._uploads = Partials(home / FOLDER / ".partial")
        self._stored = Stored(home, plan)
        self.calls = Calls()

    def handlers(self) -> Any:
        """What a gRPC server serves: all calls as streams of messages."""
        forms: dict[str, tuple[Any, Any]] = {
            "Begin": (intake_pb2.BeginRequest, intake_pb2.BeginReply),
            "Upload": (intake_pb2.Chunk, intake_pb2.UploadReply),
            "Commit": (intake_pb2.CommitRequest, intake_pb2.CommitReply),
        }
        methods = {
            name: grpc.stream_unary_rpc_method_handler(
                getattr(self, name),
                request_deserializer=request.FromString,
                response_serializer=reply.SerializeToString,
            )
            for name, (request, reply) in forms.items()
        }
        return grpc.method_handlers_generic_handler("sfumato.intake.v1.Intake", methods)

    @guard_method
    def Begin(self, messages: Iterator[Any], context: Any) -> Any:  # noqa: N802 - the name in intake.proto
        """Accept an announcement, or name the offset to go on from."""
        record = self._caller(context)
        with self.calls.hold(record.site, "Begin", context) as call:
            request = self._only(call, messages)
            return self._begin(record, request)

    def _begin(self, record: SiteRecord, request: Any) -> Any:
        if request.site != record.site:
            raise RefusedError(grpc.StatusCode.PERMISSION_DENIED, "wrong-site")
        if request.plan_hash != self._plan.digest_at(record.site):
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "wrong-plan")
        if not 0 < request.size <= self._largest:
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "too-large")
        if len(request.sha256) != 64 or not set(request.sha256) <= set("0123456789abcdef"):
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "bad-hash")
        announced = record.site, request.plan_hash, request.size, request.sha256
        stored = self._stored.digests(record)
        if request.sha256 in stored.values():
            return intake_pb2.BeginReply(upload_id=self._uploads.again(*announced).identifier, offset=request.size)
        upload = self._uploads.begin(*announced)
        if stored.keys() >= set(shards_at(self._plan, record.site)):
            self._uploads.end(upload)
            raise RefusedError(grpc.StatusCode.ALREADY_EXISTS, "another-package")
        return intake_pb2.BeginReply(upload_id=upload.identifier, offset=upload.offset)

    @guard_method
    def Upload(self, chunks: Iterator[Any], context: Any) -> Any:  # noqa: N802
        """Take chunks in order; each must start where the last one ended."""
        record = self._caller(context)
        with self.calls.hold(record.site, "Upload", context) as call:
            return intake_pb2.UploadReply(offset=self._receive(record, self.calls.messages(call, chunks)))

    @guard_method
    def Commit(self, messages: Iterator[Any], context: Any) -> Any:  # noqa: N802
        """Verify and store what was sent; the same bytes again are no error."""
        record = self._caller(context)
        with self.calls.hold(record.site, "Commit", context) as call:
            request = self._only(call, messages)
            upload = self._upload(record, request.upload_id)
            with _held(upload):
                return self._commit(record, upload)

    def _commit(self, record: SiteRecord, upload: Partial) -> Any:
        if upload.sha256 in self._stored.digests(record).values():
            self._uploads.end(upload)
            return intake_pb2.CommitReply(status=intake_pb2.CommitReply.ALREADY_STORED)
        if upload.offset != upload.size:
            raise RefusedError(grpc.StatusCode.FAILED_PRECONDITION, "incomplete")
        self._store(record, upload)
        return intake_pb2.CommitReply(status=intake_pb2.CommitReply.STORED)

    def _only(self, call: Call, messages: Iterator[Any]) -> Any:
        """The one message of a call that has one."""
        found = next(self.calls.messages(call, messages), None)
        if found is None:
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "no-message")
        call.complete()
        return found

    def _caller(self, context: Any) -> SiteRecord:
        """The enrolled site of this plan behind the connection."""
        certificates = context.auth_context().get("x509_pem_cert", [])
        if len(certificates) != 1:
            raise RefusedError(grpc.StatusCode.UNAUTHENTICATED, "no-certificate")
        try:
            record = self._registry.by_certificate(certificates[0])
        except FederationError:
            raise RefusedError(grpc.StatusCode.PERMISSION_DENIED, "not-enrolled") from None
        if record.site not in self._plan.sites:  # admitted since, perhaps
            self._plan = self._current()
            self._stored.follow(self._plan)
        if record.site not in self._plan.sites:
            raise RefusedError(grpc.StatusCode.PERMISSION_DENIED, "not-in-study")
        return record

    def _upload(self, record: SiteRecord, identifier: str) -> Partial:
        upload = self._uploads.of(record.site, identifier)
        if upload is None:
            raise RefusedError(grpc.StatusCode.FAILED_PRECONDITION, "begin-first")
        return upload

    def _receive(self, record: SiteRecord, chunks: Iterator[Any]) -> int:
        offset = 0
        for chunk in chunks:
            upload = self._upload(record, chunk.upload_id)
            if not 0 < len(chunk.data) <= LARGEST_CHUNK:
                raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "bad-chunk")
            with _held(upload):
                offset = upload.offset
                if chunk.offset != offset or offset + len(chunk.data) > upload.size:
                    raise RefusedError(grpc.StatusCode.ABORTED, "wrong-offset")
                upload.append(chunk.data)
                offset += len(chunk.data)
        return offset

    def _store(self, record: SiteRecord, upload: Partial) -> None:
        try:
            if file_sha256(upload.path) != upload.sha256:
                raise RefusedError(grpc.StatusCode.DATA_LOSS, "wrong-hash")
            head = admit(upload.path, self._plan, record).head
            if (head.part, head.shard) in self._stored.digests(record):
                raise RefusedError(grpc.StatusCode.ALREADY_EXISTS, "another-package")
            move_into_place(upload.path, package_path(self._home, record.site, head.part, head.shard))
            self._stored.keep(record, head.part, head.shard, upload.sha256)
        finally:
            self._uploads.end(upload)
        which = f"{head.part} package {head.shard} of {head.shards}"
        log.info("%s of site %s stored, %d bytes", which, record.site, upload.size)


@contextlib.contextmanager
def _held(upload: Partial) -> Iterator[None]:
    """The upload for one call alone: another is told to come back, and no worker waits for a long verification."""
    if not upload.lock.acquire(timeout=_LOCK_S):
        raise RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")
    try:
        yield
    finally:
        upload.lock.release()
