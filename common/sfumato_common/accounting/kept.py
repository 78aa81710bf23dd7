"""Epsilons that were computed here before, on disk: a forecast, and then what is done with it, compute them once.

An epsilon is a function of events, delta and adjacency, and of the code that computes it: all of them are in its key,
the sources of this package and the versions of its libraries among them. Each entry is authenticated (HMAC, RFC 2104)
by a random key of its folder, so that nothing counts but what was written here; anything else is computed again.
No charge is decided by it: `keeping` is for what shows what was or would be paid, for the thread and the block that
shows it, and no charge is made within.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sfumato_common.accounting.events import Mechanism
from sfumato_common.errors import SfumatoError
from sfumato_common.files import make_private_folder, write_atomic

Tally = Sequence[tuple[Mechanism, int]]
FORMAT = "sfumato-epsilon/1"
_KEY = "key"
_MOST = 4000
_LIBRARIES = ("dp-accounting", "numpy", "scipy")
_folder: ContextVar[Path | None] = ContextVar("folder of kept epsilons", default=None)


@contextmanager
def keeping(folder: Path) -> Iterator[None]:
    """Keep epsilons in `folder`, and take them from there, until the block ends.

    It is made, and closed to others (mode 0700). Where that cannot be, nothing is kept.
    """
    token = _folder.set(folder if _ours(folder) else None)
    try:
        yield
    finally:
        _folder.reset(token)


def computed_once(tally: Tally, delta: float, adjacency: str, compute: Callable[[], float]) -> float:
    """What `compute` gives, or gave before of the same question to the same code."""
    folder = _folder.get()
    if folder is None:
        return compute()
    name, key = _name(tally, delta, adjacency), _secret(folder)
    if key is None:
        return compute()
    if (found := _read(folder / name, name, key)) is not None:
        return found
    value = compute()
    with suppress(OSError, SfumatoError):  # what cannot be kept was computed all the same
        write_atomic(folder / name, json.dumps(_signed(name, value.hex(), key)), mode=0o600, durable=False)
        _thin_out(folder)
    return value


def _ours(folder: Path) -> bool:
    try:
        make_private_folder(folder)
        return not folder.is_symlink() and folder.stat().st_uid == os.geteuid()
    except (OSError, SfumatoError):
        return False


def _secret(folder: Path) -> bytes | None:
    """The folder's key, made where there is none; None where there cannot be one."""
    path = folder / _KEY
    try:
        with suppress(FileExistsError):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as stream:
                stream.write(secrets.token_bytes(32))
        found = path.read_bytes()
    except OSError:
        return None
    return found if len(found) == 32 else None  # another process may be writing it: compute meanwhile


def _read(path: Path, name: str, key: bytes) -> float | None:
    try:
        found = json.loads(path.read_bytes())
        value = float.fromhex(found["epsilon"])
        whole = hmac.compare_digest(str(found["mac"]), _signed(name, found["epsilon"], key)["mac"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return value if whole else None


def _signed(name: str, value: str, key: bytes) -> dict[str, str]:
    said = f"{FORMAT} {name} {value}"
    return {"epsilon": value, "mac": hmac.new(key, said.encode(), "sha256").hexdigest()}


def _name(tally: Tally, delta: float, adjacency: str) -> str:
    """sha256 of the whole question, and of what answers it."""
    events = [[type(event).__name__, _exact(asdict(event)), times] for event, times in tally]
    question = {"events": events, "delta": delta.hex(), "adjacency": adjacency, "code": _code()}
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()


def _exact(fields: dict[str, Any]) -> dict[str, Any]:
    """Numbers to the last bit."""
    return {name: value.hex() if isinstance(value, float) else value for name, value in fields.items()}


@cache
def _code() -> dict[str, str]:
    """What computes: the versions of the libraries, and the sha256 of this package's sources."""
    sources = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        sources.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return {**{name: version(name) for name in _LIBRARIES}, "sources": sources.hexdigest()}


def _thin_out(folder: Path) -> None:
    """Let the oldest go where there are too many."""
    files = [file for file in folder.iterdir() if len(file.name) == 64]
    if len(files) > _MOST:
        for file in sorted(files, key=lambda one: one.stat().st_mtime)[: len(files) // 2]:
            file.unlink(missing_ok=True)
