"""The machine: memory, disk, locks, this machine's own ports, and a clock that was set back."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator

import numpy as np

from sfumato_client.ingest.offline import can_leave_network
from sfumato_client.site.checks.finding import Finding, Subject
from sfumato_common.errors import BusyError, NoRoomError
from sfumato_common.files import set_aside
from sfumato_common.locks import exclusive
from sfumato_common.memory import free_bytes
from sfumato_common.supervise import free_port
from sfumato_common.types import pixel_dtype

_GIB = 2**30
# the worker at rest holds half of it; with less a step's chunks are a few images each
_LEAST_MEMORY = _GIB
# models, answers that are kept, logs, candidates
_BESIDE_IMAGES = _GIB
# while a store grows its images may stand twice on the disk
_COPIES = 2
_FEWEST_FILES = 10_000
_BACK_S = 300.0


def memory(subject: Subject) -> Iterator[Finding]:
    """Memory and cores that the worker finds."""
    del subject
    free, cores = free_bytes(), len(os.sched_getaffinity(0))
    said = f"{free / _GIB:.1f} GiB of memory are free, {cores} cores"
    if free < _LEAST_MEMORY:
        yield Finding("wrong", f"{said}; the worker needs 1 GiB at least: end other programs, or add memory")
    else:
        yield Finding("good", said)


def disk(subject: Subject) -> Iterator[Finding]:
    """Room for the images and what a study leaves, and that the home can be written."""
    root = subject.home.root
    needed = _BESIDE_IMAGES
    if subject.plan is not None and subject.report is not None:
        form = subject.plan.image
        image = int(np.prod(form.shape)) * np.dtype(pixel_dtype(form.bits)).itemsize
        needed += _COPIES * (subject.report.kept + len(subject.report.skipped)) * image
    free = shutil.disk_usage(root).free
    said = f"{free / _GIB:.1f} GiB of disk are free, {needed / _GIB:.1f} GiB are enough"
    if free < needed:
        yield Finding("wrong", f"{said}: make room, or move the home to another disk")
    else:
        yield Finding("good", said)
    left = os.statvfs(root).f_favail
    if 0 < left < _FEWEST_FILES:
        yield Finding("wrong", f"the disk takes {left} more files only; remove some, or move the home")
    try:
        with set_aside(subject.home.ingesting, 2**20):
            pass
    except (NoRoomError, OSError):
        yield Finding("wrong", "nothing can be written in the home: its disk or your quota is full, or it is read-only")


def locks(subject: Subject) -> Iterator[Finding]:
    """That a lock of the home holds: network disks without locks lose charges."""
    probe = subject.home.ingesting / "probe"
    try:
        with exclusive(probe, "a look"):
            try:
                with exclusive(probe, "a look"):
                    yield Finding("wrong", "locks do not hold on the home's disk: put the home on a local disk")
            except BusyError:
                yield Finding("good", "locks hold on the home's disk")
    except OSError:
        yield Finding("wrong", "the home's disk has no locks (flock): put the home on a local disk")
    shutil.rmtree(probe, ignore_errors=True)


def ports(subject: Subject) -> Iterator[Finding]:
    """That node and worker can talk on this machine."""
    del subject
    try:
        free_port()
    except OSError:
        yield Finding("wrong", "no port of 127.0.0.1 can be opened; node and worker talk by one: allow it")
        return
    yield Finding("good", "ports of 127.0.0.1 can be opened; nothing of the site listens elsewhere")


def readers(subject: Subject) -> Iterator[Finding]:
    """That what decodes files can reach no network, whatever is in a file or in a library."""
    del subject
    if can_leave_network():
        yield Finding("good", "readers are without a network: the system refuses them every socket")
    else:
        yield Finding(
            "note",
            "readers can reach the network on this machine: its system has no seccomp filter for them. A decoder that "
            "a file has taken over could send images away: ingest on Linux, or on a machine without a way out",
        )


def clock(subject: Subject) -> Iterator[Finding]:
    """That the clock was not set back behind what the home holds; the coordinator's is compared when it is reached."""
    newest = max((path.stat().st_mtime for path in subject.home.root.iterdir()), default=0.0)
    ahead = newest - time.time()
    if ahead > _BACK_S:
        yield Finding("wrong", "files of the home are newer than this machine's clock says: set the clock")
    else:
        yield Finding("good", "the clock is not behind what the home holds")
