"""Folders that one process or thread holds at a time, by flock: the kernel frees them when their holder dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sfumato_common.errors import BusyError

LOCK = ".lock"  # the file in a folder that is held


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Hold `folder` alone (flock on `folder/.lock`), after every other process and thread that does."""
    with _lock_of(folder) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def exclusive(folder: Path, what: str) -> Iterator[None]:
    """Hold `folder` alone (flock on `folder/.lock`). Raises BusyError at once when another process holds it."""
    with _lock_of(folder) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BusyError(f"{what} is already running in '{folder.name}'; wait for it or stop it") from None
        yield


def is_held(folder: Path) -> bool:
    """Whether another process or thread holds `folder`; false also where nobody ever did."""
    try:
        descriptor = os.open(folder / ".lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(descriptor)


@contextmanager
def _lock_of(folder: Path) -> Iterator[int]:
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
