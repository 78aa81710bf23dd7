"""How Ray begins and ends for us: one of our own on this machine, or a cluster that is named by its address.

A Ray of our own listens on loopback alone, asks for a token that nobody else has, shows no dashboard and reports
nothing. A cluster that is named by its address is its owner's: whoever reaches it can run code there.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sfumato_common.errors import ConfigError

_REACH_SECONDS = 10.0
# read when Ray is imported: no usage report, and listening on loopback alone (Ray's own switch, named for the systems
# where it is the default)
_ALWAYS = {"RAY_USAGE_STATS_ENABLED": "0"}
_ASKED_FOR = "RAY_AUTH_TOKEN"
_ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
_OBJECTS = 256 * 1024**2  # what is asked and answered passes through Ray's store, which takes a third of the memory


def start_ray(number: int, address: str | None) -> Path | None:
    """Join the cluster at `address`, or start a Ray with room for `number` workers, whose folder is returned.

    `leave_ray` takes that folder. Raises ConfigError where Ray is not installed, or does not answer.
    """
    if find_spec("ray") is None:
        raise ConfigError("Ray is not installed: pip install 'sfumato[ray]', here and on every machine of the cluster")
    os.environ.update(_ALWAYS)
    if address is not None:
        _join_cluster(address)
        return None
    os.environ.update({**_ALONE, _ASKED_FOR: _token()})
    # a socket has a path of 107 bytes at most, and Ray adds half of them; its own folder it opens to everybody
    session = Path(tempfile.mkdtemp(prefix="sfumato-ray-", dir="/tmp"))
    alone = {"address": "local", "num_cpus": number, "include_dashboard": False, "_temp_dir": str(session / "r")}
    try:
        with _home(session):
            _join("Ray did not start", object_store_memory=_OBJECTS, **alone)
    except BaseException:
        leave_ray(session)
        raise
    return session


@cache
def _token() -> str:
    """What a Ray of this process asks for, the same each time: Ray reads it once a process, whatever stands later."""
    return os.environ.get(_ASKED_FOR) or secrets.token_hex(32)


def leave_ray(session: Path | None) -> None:
    """Leave a cluster, or end a Ray of our own and remove its folder."""
    import ray

    ray.shutdown()
    if session is not None:
        shutil.rmtree(session, ignore_errors=True)


@contextmanager
def as_config_error(what: str) -> Iterator[None]:
    """What Ray raises, as ConfigError with the first line of its text, which is long."""
    import ray

    try:
        yield
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
        said = next(iter(str(error).strip().splitlines()), "")[:200]
        raise ConfigError(f"{what}: {type(error).__name__} {said}".rstrip()) from None


def _join_cluster(address: str) -> None:
    silent = f"no Ray cluster answers at '{address}'"
    host, _, port = address.rpartition(":")
    if port.isdecimal():
        try:  # Ray itself asks for minutes
            socket.create_connection((host.strip("[]"), int(port)), _REACH_SECONDS).close()
        except OSError:
            raise ConfigError(f"{silent}; check the address, or leave --ray-address away") from None
    try:
        _join(silent, address=address)
    except BaseException:
        leave_ray(None)
        raise


def _join(what: str, **given: Any) -> None:
    import ray

    with as_config_error(what):
        ray.init(log_to_driver=False, configure_logging=False, **given)


@contextmanager
def _home(session: Path) -> Iterator[None]:
    """Ray's processes get a home of their own, with the file by whose absence Ray asks clouds' metadata services."""
    (session / "ray_bootstrap_config.yaml").write_text("{}\n")
    before = os.environ.get("HOME")
    os.environ["HOME"] = str(session)
    try:
        yield
    finally:
        os.environ.pop("HOME")
        if before is not None:
            os.environ["HOME"] = before
