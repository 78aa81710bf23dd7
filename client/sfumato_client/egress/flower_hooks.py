"""Every touch of Flower's internals at the site: the node's certificate and polls, the worker's tasks and answers.

Tied to the one pinned version; another is refused with one error, and so is a hook whose target is not there.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

from sfumato_client.egress.bundle import inspect_bundle
from sfumato_client.egress.progress import CONTACT_FILE, heard_alone, shown_step
from sfumato_client.egress.unreached import cut_words, refusal_words, seconds_ahead
from sfumato_common.errors import VerificationError
from sfumato_common.files import if_room, read_object, write_json
from sfumato_common.protocol.messages import PROGRESS_HEADER

SUPPORTED_FLOWER = "1.41.0"
_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
_TASK_HOOKS = ("install_from_fab", "get_load_client_app_fn", "Error", "push_task_output", "run_clientapp")
_TASK_POLL_SECONDS = 0.1
_CONTACT_SECONDS = 5.0
_REPLY_POLL_SECONDS = 0.1
# an idle node asks again after a share of the time since its last message: soon in a study, seldom between studies
_IDLE_SHARE, _SHORTEST_POLL_SECONDS, _LONGEST_POLL_SECONDS = 0.05, 0.2, 3.0


def require_flower() -> None:
    """Raise VerificationError unless the one Flower is installed that the hooks were tested with."""
    if version("flwr") != SUPPORTED_FLOWER:
        raise VerificationError(f"the site was tested with another Flower; install flwr=={SUPPORTED_FLOWER}")


def _require_hooks(module: Any, *names: str) -> None:
    for name in names:
        if not hasattr(module, name):
            raise VerificationError(f"this Flower lacks '{name}'; install flwr=={SUPPORTED_FLOWER}")


class Contact:
    """On each request to the coordinator the step that policy shows; in the home when it last answered, or why not."""

    def __init__(self, home: Path, address: str = "", now: Callable[[], float] = time.time) -> None:
        self._file, self._home, self._address, self._now = home / CONTACT_FILE, home, address, now
        self._kept, self._written = read_object(self._file), 0.0

    def intercept(self, context: Any, call_next: Any) -> Any:
        """Flower's interceptor of a call."""
        if (told := shown_step(self._home)) is not None:
            context.request.headers[PROGRESS_HEADER.decode()] = told.decode()
        asked = self._now()
        try:
            response = call_next(context)
        except (httpx.HTTPError, OSError) as error:
            self._fail(cut_words(error, self._address))
            raise
        if why := _kept_out(context, response, seconds_ahead(response, asked, self._now())):
            self._fail(why)
        else:
            self._hear()
        return response

    def _hear(self) -> None:
        now = self._now()
        if "why" in self._kept or abs(now - self._written) >= _CONTACT_SECONDS:
            self._keep({"heard": round(now, 1)})

    def _fail(self, why: str) -> None:
        """Since when, and why, the coordinator is not reached: the first failure of those in a row."""
        since = self._kept.get("failed", round(self._now(), 1))
        if self._kept.get("why") != why:
            self._keep({**heard_alone(self._kept), "failed": since, "why": why})

    def _keep(self, value: dict[str, Any]) -> None:
        self._kept, self._written = value, self._now()
        with if_room():  # a full disk must not cost the connection
            write_json(self._file, value)


def _kept_out(context: Any, response: httpx.Response, ahead_s: float | None) -> str:
    """Why an answer does not let the site in, in a sentence; '' where it does, or tells of the end of a run alone."""
    status = response.status_code
    if str(context.rpc_method).endswith("/ActivateNode"):
        return refusal_words(response, ahead_s) if status >= 400 else ""
    if status == httpx.codes.UNAUTHORIZED:  # as a rule: it forgets its nodes when it is started anew
        return "it was started anew, or does not let this site in any more; the site joins again, which tells"
    return refusal_words(response, ahead_s) if status in (502, 503, 504) else ""


def install_certificate(connection: Any, certificate: Path, key: Path, contact: Contact) -> None:
    """Make Flower's Fleet connection module show `certificate` (PEM): its client has no option for one.

    It also keeps `contact`.
    """
    _require_hooks(connection, "FleetHttpClient")
    connection.FleetHttpClient = certified_client(connection.FleetHttpClient, certificate, key, contact)


def certified_client(plain: Any, certificate: Path, key: Path, interceptor: Any) -> Any:
    """A subclass of Flower's client `plain` over mutual TLS, whose every call `interceptor` sees last."""

    class CertifiedClient(plain):  # type: ignore[misc]
        """Flower's client of the Fleet API over mutual TLS, and over nothing less."""

        @classmethod
        def from_server_address(
            cls, server_address: str, insecure: bool, root_certificates: bytes, interceptors: Any, **rest: Any
        ) -> Any:
            """As Flower's own, with a context that holds the site's certificate too."""
            if insecure or not isinstance(root_certificates, bytes):
                raise VerificationError("a site speaks to its coordinator over TLS alone; run it with 'sfumato-site'")
            context = ssl.create_default_context(cadata=root_certificates.decode("ascii"))
            context.load_cert_chain(certificate, key)
            return cls(f"https://{server_address}", interceptors=[*interceptors, interceptor], verify=context, **rest)

    return CertifiedClient


class _NodeClock:
    """`time` for the node's loop, which sleeps 3 s when it found no message and 0.5 s while it waits for an answer."""

    def __init__(self, sleep: Callable[[float], None] = time.sleep, now: Callable[[], float] = time.monotonic) -> None:
        self._sleep, self._now = sleep, now
        self._worked = now()

    def sleep(self, seconds: float) -> None:
        """Sleep less than asked: the answer is awaited on this machine, and messages come one after another."""
        if seconds < 1.0:
            self._worked = self._now()
            self._sleep(_REPLY_POLL_SECONDS)
        else:
            idle = _IDLE_SHARE * (self._now() - self._worked)
            self._sleep(min(max(idle, _SHORTEST_POLL_SECONDS), _LONGEST_POLL_SECONDS))


def shorten_polls(loop: Any) -> None:
    """Give the module of the SuperNode's loop a clock with shorter sleeps: Flower's are constants."""
    _require_hooks(loop, "time")
    loop.time = _NodeClock()


@dataclass(frozen=True)
class Task:
    """A message to be answered: the token that opens it, and whether it is one for a ClientApp."""

    token: str
    for_client_app: bool


def next_task(address: str, secret: bytes) -> Task:
    """Wait for the next task of the SuperNode at `address` (host:port, loopback), signing with their shared secret.

    Its connection is closed on return: a fork shares none. Tasks of agents are taken too, to be refused: one that
    nobody takes would stop the node. A node that does not answer is asked again.
    """
    from flwr.proto.runtime_pb2 import AcquireTaskRequest
    from flwr.supercore.constant import TaskType
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
    from flwr.supercore.retry import make_simple_http_retry_invoker
    from flwr.supercore.runtime import RuntimeHttpClient

    signs: list[Any] = [
        RuntimeVersionHttpInterceptor(component_name="SuperExec"),
        SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods={_ACQUIRE}),
    ]
    wanted = AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP, TaskType.AGENT_APP])
    client = RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=True,
        root_certificates=None,
        interceptors=signs,
        retry_invoker=make_simple_http_retry_invoker(),  # it is not up yet, or ending
    )
    with closing(client):
        while True:
            answer = client.AcquireTask(wanted)
            if answer.HasField("task"):
                return Task(str(answer.token), answer.task.type == TaskType.CLIENT_APP)
            time.sleep(_TASK_POLL_SECONDS)


def install_task_hooks(runtime: Any, app: Any) -> None:
    """Point Flower's client runtime module at the installed `app`: no bundle is unpacked, no exception's text sent."""
    _require_hooks(runtime, *_TASK_HOOKS)
    push = runtime.push_task_output
    runtime.install_from_fab = _install_nothing
    runtime.get_load_client_app_fn = lambda **_: lambda *_: app
    runtime.Error = _silent_error(runtime.Error)
    runtime.push_task_output = lambda client, context, sub_status, details: push(
        client=client, context=context, sub_status=sub_status, details="failed" if details else ""
    )


def answer_task(address: str, task: Task, app: Any) -> None:
    """Answer one task with the installed `app`, in a process of its own: Flower's runtime ends it (SystemExit)."""
    runtime = import_module("flwr.supernode.runtime.run_clientapp")
    install_task_hooks(runtime, app if task.for_client_app else _refuse)
    runtime.run_clientapp(
        runtime_api_address=address,
        token=task.token,
        insecure=True,
        parent_pid=os.getppid(),
        runtime_dependency_install=False,
    )


def _refuse(*_: Any, **__: Any) -> Any:
    raise VerificationError("refused: the message is for an agent, and this site runs none")


def _install_nothing(content: bytes, **_: Any) -> None:
    inspect_bundle(content)


def _silent_error(error_class: Any) -> Any:
    """Flower's Error without its reason: the text of an exception may hold a path or a name."""

    def make(code: int, reason: str | None = None) -> Any:
        return error_class(code=code, reason="bundle-refused" if "BundleRefused" in (reason or "") else "failed")

    return make
