"""The SuperLink's program: every call of every API asks who calls, and no option opens it to the world."""

import asyncio
import subprocess
import sys
from base64 import b64encode
from datetime import timedelta
from types import SimpleNamespace

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import HTTPException
from fastapi.routing import iter_route_contexts
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.superlink.routers.fleet import node_auth
from support.enrolment import enrol_site
from support.studies import PLAN

from sfumato_common.crypto.identity import create_identity
from sfumato_common.errors import ConfigError, FederationError
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.coordinator.serverapp import acquire_token
from sfumato_server.rounds import superlink_program
from sfumato_server.rounds.superlink import SuperLinkSettings, write_secret
from sfumato_server.rounds.superlink_program import (
    allow_clocks,
    control_token,
    install_login,
    require_flower,
    token_login,
)
from sfumato_server.simulate.home import make_coordinator

SECRET = b"5" * 64
# they say that the process lives, and how its API is spelled
PUBLIC = {"/health", "/docs", "/docs/oauth2-redirect", "/openapi.json"}
# they would give a login, and have none to give
LOGINS = {f"/v1/control/{call}" for call in ("get-login-details", "get-auth-tokens", "refresh-auth-tokens")}


@pytest.fixture(scope="module")
def application():
    """Flower's own application with the login, as the program makes it."""
    from flwr.superlink import main

    plain = main.load_control_authn_plugin
    install_login(main, control_token(SECRET))
    try:
        app = main.create_app()
    finally:
        main.load_control_authn_plugin = plain
    app.state.superexec_auth_secret = SECRET
    app.state.enable_supernode_auth = True
    return app


def post(application, path, *headers, content=b"") -> httpx.Response:
    """A call as it comes to the SuperLink's port."""

    async def call():
        transport = httpx.ASGITransport(application, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="https://127.0.0.1") as client:
            return await client.post(path, content=content, headers=[("content-type", PROTOBUF_MEDIA_TYPE), *headers])

    return asyncio.run(call())


def test_no_call_of_any_api_is_answered_to_who_shows_nothing(application):
    routes = {context.route.path for context in iter_route_contexts(application.routes)}
    assert routes >= PUBLIC - {"/docs/oauth2-redirect"} | LOGINS
    asked = sorted(routes - PUBLIC - LOGINS)
    answers = {path: post(application, path.replace("{response_id}", "x")).status_code for path in asked}
    assert set(answers.values()) == {401}, {path: status for path, status in answers.items() if status != 401}
    assert {path.split("/")[2] for path in asked} == {"control", "fleet", "runtime"}
    assert len(asked) > 60


def test_the_tokens_holder_is_let_in(application):
    right = f"Bearer {control_token(SECRET)}"
    assert post(application, "/v1/control/list-runs", ("authorization", right)).status_code == 200


@pytest.mark.parametrize("shown", ["", "Bearer", "Bearer x", f"Bearer {SECRET.decode()}", f"Basic {SECRET.decode()}"])
def test_no_other_token_is(application, shown):
    assert post(application, "/v1/control/list-runs", ("authorization", shown)).status_code == 401


def test_two_tokens_are_none(application):
    right = ("authorization", f"Bearer {control_token(SECRET)}")
    assert post(application, "/v1/control/list-runs", right, right).status_code == 401


@pytest.mark.parametrize("path", sorted(LOGINS))
def test_no_login_is_given_out(application, path):
    answer = post(application, path)
    assert answer.status_code != 200 or answer.content == b""


def test_a_task_is_given_to_the_secrets_holder_alone(application):
    from flwr.proto.runtime_pb2 import AcquireTaskRequest
    from flwr.supercore.auth import create_superexec_auth_metadata, derive_auth_secret

    request = AcquireTaskRequest(supported_task_types=["flwr-serverapp"])
    body = request.SerializeToString(deterministic=True)
    answers = []
    for secret in (SECRET, b"other"):
        signed = create_superexec_auth_metadata(
            auth_secret=derive_auth_secret(secret), method="/flwr.proto.Runtime/AcquireTask", request=request
        )
        headers = {**signed, **VERSION}.items()
        answers += [post(application, "/v1/runtime/acquire-task", *headers, content=body) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 401, 401, 401], "nor twice with one signature"


VERSION = {"flwr-package-name": "flwr", "flwr-package-version": "1.41.0", "flwr-component-name": "SuperExec"}


def test_a_login_without_its_hook_is_refused():
    with pytest.raises(ConfigError, match="lacks 'load_control_authn_plugin'"):
        install_login(SimpleNamespace(), "x")


def test_another_flower_is_refused(monkeypatch):
    require_flower()
    monkeypatch.setattr(superlink_program, "version", lambda _: "1.42.0")
    with pytest.raises(ConfigError, match="install flwr"):
        require_flower()


def test_the_plugin_compares_whole_tokens():
    login = token_login("right")
    shown = [[], [("t", "right")], [("t", b"right")], [("t", "righ")], [("t", "right"), ("t", "right")]]
    assert [login.validate_tokens_in_metadata(each)[0] for each in shown] == [False, True, True, False, False]


GOOD = ["--host", "127.0.0.1", "--isolation", "process", "--superexec-auth-secret-file", "s"]


@pytest.mark.parametrize(
    ("option", "value"),
    [("--host", "0.0.0.0"), ("--host", "::"), ("--host", "10.0.0.5"), ("--isolation", "subprocess")],
)
def test_the_program_listens_on_loopback_and_starts_no_process(monkeypatch, capsys, option, value):
    changed = list(GOOD)
    changed[changed.index(option) + 1] = value
    monkeypatch.setattr(sys, "argv", ["superlink", *changed])
    with pytest.raises(SystemExit):
        superlink_program.main()
    assert "invalid choice" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--host", "--isolation", "--superexec-auth-secret-file"])
def test_the_program_does_not_start_without_its_safeguards(monkeypatch, capsys, option):
    at = GOOD.index(option)
    monkeypatch.setattr(sys, "argv", ["superlink", *GOOD[:at], *GOOD[at + 2 :]])
    with pytest.raises(SystemExit):
        superlink_program.main()
    assert option in capsys.readouterr().err


def test_settings_have_no_host():
    assert "host" not in SuperLinkSettings.__dataclass_fields__


def test_a_secret_is_new_each_time_and_its_owners_alone(tmp_path):
    write_secret(tmp_path / "secret")
    first = (tmp_path / "secret").read_bytes()
    write_secret(tmp_path / "secret")
    assert len(first) == 64 and (tmp_path / "secret").read_bytes() != first
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


class Queue:
    """A Runtime API that gives out these (run, type, token), then nothing."""

    def __init__(self, *tasks):
        self.tasks, self.asked = list(tasks), set()

    def AcquireTask(self, request):  # noqa: N802 - Flower's name
        from flwr.proto.runtime_pb2 import AcquireTaskResponse
        from flwr.proto.task_pb2 import Task

        self.asked |= set(request.supported_task_types)
        if not self.tasks:
            return AcquireTaskResponse()
        run, kind, token = self.tasks.pop(0)
        return AcquireTaskResponse(task=Task(task_id=1, run_id=run, type=kind), token=token)


def test_only_the_task_of_the_own_run_is_taken():
    queue = Queue((1, "flwr-serverapp", "evil"), (7, "flwr-simulation", "evil"), (7, "flwr-serverapp", "own"))
    assert acquire_token(queue, 7, 5) == "own"
    assert queue.asked == {"flwr-serverapp"}, "no other kind of task is asked for"


def test_without_an_own_task_nothing_runs():
    queue = Queue(*[(run, "flwr-serverapp", "evil") for run in range(3)])
    with pytest.raises(FederationError, match="no task for the study's run"):
        acquire_token(queue, 7, 0.5)


def test_flowers_telemetry_is_off_in_the_coordinators_own_process():
    code = (
        "import sfumato_server.cli.main, sfumato_server.rounds.superlink\n"
        "from flwr.supercore import telemetry; print(telemetry.FLWR_TELEMETRY_ENABLED)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "0"


_WATCHED = """
import os, sys
seen, reached = [], []

def hook(event, given):
    if event == "import" and given[0].partition(".")[0] == "flwr":
        seen.append([os.environ.get(name) for name in ("FLWR_TELEMETRY_ENABLED", "FLWR_DISABLE_UPDATE_CHECK")])
    elif event == "socket.connect":
        reached.append(str(given[1]))
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        reached.append(str(given[0]))

sys.addaudithook(hook)
"""


def test_telemetry_is_off_before_flower_is_imported_by_either_side_or_the_library():
    for first in ("sfumato_server.cli.main", "sfumato_client.flower.app", "sfumato_common.protocol.flower", "sfumato"):
        code = (
            f"{_WATCHED}\nimport {first}, flwr.app, flwr.serverapp, flwr.clientapp, flwr.supercore.telemetry as told\n"
            "assert seen and {tuple(found) for found in seen} == {('0', '1')}, seen\n"
            "assert told.FLWR_TELEMETRY_ENABLED == '0' and not reached, reached"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (first, done.stderr[-500:])


def test_the_coordinators_own_process_connects_to_nothing_but_loopback(tmp_path):
    """A whole start: intake, front, SuperLink, page, the run; its own process and what it starts are looked at."""
    home = make_coordinator(tmp_path / "home", parse(PLAN, Plan, "plan"))
    for name in home.plan().sites:
        enrol_site(home.root, create_identity(tmp_path / name, name))
    code = f"""{_WATCHED}
import pathlib
from sfumato_common.errors import FederationError
import sfumato_server.coordinator.run as coordinator
from sfumato_common.supervise import descendants, free_port

environments = {{}}

def watch():
    for pid in descendants(os.getpid()):
        try:
            environments[pid] = pathlib.Path(f"/proc/{{pid}}/environ").read_bytes()
        except OSError:
            pass

try:
    listen = coordinator.Listen("127.0.0.1", free_port(), free_port())
    coordinator.run_coordinator(pathlib.Path({str(home.root)!r}), pathlib.Path({str(tmp_path)!r}, "out"), listen, watch)
except FederationError as error:
    assert "0 of the 2 sites" in str(error)  # nobody joins
assert reached, "it speaks to its own SuperLink"
assert not [name for name in reached if "127.0.0.1" not in name], reached
found = [value for value in environments.values() if b"serverapp" in value or b"SFUMATO_COORDINATOR_HOME" in value]
assert len(found) >= 2 and all(b"FLWR_TELEMETRY_ENABLED=0" in value for value in found), environments
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-1500:]


def signed_at(hours):
    """A node's request, as Flower's server sees it, signed so many hours from now."""
    key = ec.generate_private_key(ec.SECP384R1())
    public = public_key_to_bytes(key.public_key())
    at = (now() + timedelta(hours=hours)).isoformat()
    signature = sign_message(key, at.encode())
    headers = {
        FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public).decode(),
        FLEET_HTTP_SIGNATURE_HEADER: b64encode(signature).decode(),
        TIMESTAMP_HEADER: at,
    }
    state = SimpleNamespace(protobuf_request=ActivateNodeRequest(public_key=public))
    return SimpleNamespace(headers=headers, state=state)


@pytest.mark.parametrize("hours", [-1, 0, 1])
def test_a_node_whose_clock_is_off_by_an_hour_is_let_in_and_one_of_yesterday_is_not(monkeypatch, hours):
    monkeypatch.setattr(node_auth, "SYSTEM_TIME_TOLERANCE", node_auth.SYSTEM_TIME_TOLERANCE)  # put back at the end
    if hours:
        with pytest.raises(HTTPException):
            node_auth.authenticate_node(signed_at(hours))
    allow_clocks(node_auth)
    node_auth.authenticate_node(signed_at(hours))
    for days in (-1, 1):
        with pytest.raises(HTTPException):
            node_auth.authenticate_node(signed_at(24 * days))
    with pytest.raises(ConfigError, match="SYSTEM_TIME_TOLERANCE"):
        allow_clocks(SimpleNamespace())
