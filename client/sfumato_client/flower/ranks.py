"""The ranks of a training step: processes of this machine that start with the work and end with it (torch.distributed).

What a rank is given goes through a pipe, which no other process reads. The sums are added up by gloo on 127.0.0.1,
between processes that have each shown the other the secret of this work; gloo itself asks nobody who they are, so that
on the machine of a site with several devices nobody else has an account. A rank that died or hangs ends the work like a
kill does: nothing of it has left, and the question is worked on again under its charge.
"""

from __future__ import annotations

import copy
import hmac
import pickle
import secrets
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch._C._distributed_c10d import FileStore

from sfumato_client.site.home import SiteHome
from sfumato_client.training.dp.contract import RecordLoss
from sfumato_common.errors import ConfigError, WorkerLost
from sfumato_common.files import make_private_folder
from sfumato_common.memory import VARIABLE, budget
from sfumato_common.protocol.frames import write_frame
from sfumato_common.supervise import Child, flower_environment
from sfumato_common.types import Arrays

# a step of work without a sign is ended after as long by the site's own watch (`site/watch.py`)
WAIT_SECONDS = 900.0
_SECRET_BYTES = 32
READY = b"ready\n"  # what a rank says before it joins


def device_count(wanted: int) -> int:
    """How many devices to work on: `wanted`, or (0) all CUDA devices that this process may use; 1 on a CPU.

    Raises ConfigError for more CUDA devices than there are.
    """
    here = torch.cuda.device_count()
    if here and wanted > here:
        raise ConfigError(f"--devices {wanted}: this site may use {here} CUDA devices; ask for no more")
    return wanted or max(1, here)


def device_of(rank: int) -> torch.device:
    """The device of a rank: its own CUDA device, or the CPU, which all share."""
    return torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")


def join_group(store: Path, rank: int, world: int, seconds: float) -> Any:
    """The gloo group of `world` ranks that meet at the file `store`, on loopback; no wait in it is longer."""
    gloo: Any = distributed.ProcessGroupGloo
    options = gloo._Options()
    options._devices = [gloo.create_device(hostname="127.0.0.1")]
    options._timeout = timedelta(seconds=seconds)
    return gloo(FileStore(str(store), world), rank, world, options)


def add_up(group: Any, own: Tensor) -> Tensor:
    """All-reduce: the sum of the ranks' vectors. Raises WorkerLost where one is gone or does not answer in time."""
    try:
        group.allreduce([own]).wait()
    except RuntimeError as error:
        raise WorkerLost("a process that shared a training step died or hangs; the work is begun again") from error
    return own


def check_secret(group: Any, secret: bytes, rank: int, world: int) -> None:
    """Raise WorkerLost unless every rank of the group holds `secret`: each shows a mark that only its holders know."""
    marks = torch.stack([_mark(secret, at) for at in range(world)])
    own = torch.zeros_like(marks)
    own[rank] = marks[rank]
    if not torch.equal(add_up(group, own), marks):
        raise WorkerLost("a process that is none of this work's answered in a rank's place; nothing was given to it")


def _mark(secret: bytes, rank: int) -> Tensor:
    digest = hmac.digest(secret, rank.to_bytes(4, "big"), "sha256")
    return torch.tensor(list(digest), dtype=torch.float64)


class LocalRanks:
    """The ranks of one work; see `training.dp.shared.Ranks`. They start with `begin`, and `stop` ends them."""

    def __init__(self, home: SiteHome, world: int, seconds: float = WAIT_SECONDS) -> None:
        self._home, self._world, self._seconds = home, world, seconds
        self._children: list[Child] = []
        self._folder: Path | None = None
        self._group: Any = None

    @property
    def world(self) -> int:
        """How many there are."""
        return self._world

    @property
    def processes(self) -> list[int]:
        """Ids of those that were started."""
        return [child.pid for child in self._children]

    def begin(self, module: nn.Module, loss: RecordLoss, engine: str) -> None:
        """Start the others, give each the module as it is, and meet them."""
        self._folder = self._home.link / "ranks" / secrets.token_hex(8)
        make_private_folder(self._folder)
        store, secret = self._folder / "store", secrets.token_bytes(_SECRET_BYTES)
        # read by `rank_program` alone, from the pipe that this process holds
        content = np.frombuffer(pickle.dumps((copy.deepcopy(module).cpu(), loss)), np.uint8)
        environment = self._environment()
        for rank in range(1, self._world):
            self._children.append(Child(f"rank-{rank}", self._command(rank, store), environment, self._log, piped=True))
        for child in self._children:
            self._write(child, {"engine": engine, "secret": secret.hex()}, {"module": content})
        for child in self._children:
            self._await(child)
        try:
            self._group = join_group(store, 0, self._world, self._seconds)
        except RuntimeError as error:
            raise WorkerLost("a process that was to share a training step did not start; see 'logs'") from error
        check_secret(self._group, secret, 0, self._world)

    def hand_out(self, rank: int, arrays: Arrays, clipping_norm: float) -> None:
        """Give a rank its part of a step."""
        self._write(self._children[rank - 1], {"clipping_norm": clipping_norm}, arrays)

    def add_up(self, own: Tensor) -> Tensor:
        """The sum over all ranks."""
        return add_up(self._group, own)

    def stop(self) -> None:
        """End the others."""
        self._group = None
        for child in self._children:
            child.stop(grace_s=1.0)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _write(self, child: Child, header: dict[str, Any], arrays: Arrays) -> None:
        # one that stands still reads nothing, and a full pipe would hold this process for ever
        ending = threading.Timer(self._seconds, child.kill)
        ending.start()
        try:
            write_frame(child.to_child, header, arrays)
        except OSError as error:
            raise WorkerLost("a process that shared a training step died or hangs; the work is begun again") from error
        finally:
            ending.cancel()

    def _await(self, child: Child) -> None:
        """Wait until a rank is about to join: where one cannot start, the others need not time out."""
        ending = threading.Timer(self._seconds, child.kill)
        ending.start()
        try:
            if child.from_child.read(len(READY)) != READY:
                raise WorkerLost("a process that was to share a training step ended at its start; 'ranks.log' says why")
        finally:
            ending.cancel()

    def _command(self, rank: int, store: Path) -> list[str]:
        return [
            sys.executable, "-P", "-m", "sfumato_client.flower.rank_program",
            "--rank", str(rank),
            "--world", str(self._world),
            "--store", str(store),
            "--seconds", str(self._seconds),
        ]  # fmt: skip

    def _environment(self) -> dict[str, str]:
        own = flower_environment(self._home.link, [Path(sys.executable).parent], "SFUMATO_SITE_LINK")
        return {**own, VARIABLE: str(budget() // self._world)}

    @property
    def _log(self) -> Path:
        return self._home.logs / "ranks.log"


@contextmanager
def ranks_of(home: SiteHome, wanted: int = 0, seconds: float = WAIT_SECONDS) -> Iterator[LocalRanks | None]:
    """The ranks of one work, on `wanted` devices (0: all); None where it is one."""
    world = device_count(wanted)
    if world == 1:
        yield None
        return
    ranks = LocalRanks(home, world, seconds)
    threads = torch.get_num_threads()
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, threads // world))
    try:
        yield ranks
    finally:
        torch.set_num_threads(threads)
        ranks.stop()
