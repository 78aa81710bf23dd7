"""`python -m sfumato_client.site.simulation`: the sites' half of `sfumato simulate`, over standard input and output.

A worker holds no site: each question names the home that it is for, below the worker's own (HOME), so that the arrays
of one site at a time are in memory. It reaches no network; packages go to the coordinator's half by the same pipe.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sfumato_client.ingest import SiteImage
from sfumato_client.site.handler import Site
from sfumato_client.site.home import SiteHome
from sfumato_client.site.simulated import images_of, make_simulated_home
from sfumato_common.crypto.enrolment import enrolment_request
from sfumato_common.errors import FederationError, SfumatoError, VerificationError
from sfumato_common.protocol.frames import Frame, read_frame, write_frame
from sfumato_common.protocol.messages import Request
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.simulated import SiteToMake
from sfumato_common.types import AnyArray, Arrays

_MEGABYTE = 1024  # ru_maxrss counts kilobytes


def answer_questions(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer until the other end is gone. What goes wrong with one question is its answer."""
    while (frame := read_frame(source)) is not None:
        began = time.process_time()
        try:
            header, arrays = _answer(frame, source, sink)
        except SfumatoError as error:
            header, arrays = {"error": str(error)}, {}
        usage = {
            "seconds": time.process_time() - began,
            "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // _MEGABYTE,
        }
        write_frame(sink, {**header, "usage": usage}, arrays)


def _answer(frame: Frame, source: BinaryIO, sink: BinaryIO) -> Frame:
    asked, arrays = frame
    match asked["do"]:
        case "make":
            return _make(parse(asked["plan"], Plan, "plan"), parse(asked["site"], SiteToMake, "site")), {}
        case "read":
            return {}, _read(parse(asked["plan"], Plan, "plan"), parse(asked["site"], SiteToMake, "site"))
        case "handle":
            site = Site(SiteHome(Path.home() / asked["home"]), _deliver_by(source, sink))
            reply = site.handle(Request.from_config(asked["message"], arrays))
            return {"message": reply.to_config()}, dict(reply.arrays)
    raise VerificationError("a worker was asked what it does not know")


def _make(plan: Plan, told: SiteToMake) -> dict[str, Any]:
    """A new home; what the coordinator needs to enrol it."""
    identity = make_simulated_home(Path.home() / told.home, told.site, plan, told.cohort)
    return {"request": enrolment_request(identity).decode("ascii")}


def _read(plan: Plan, told: SiteToMake) -> dict[str, AnyArray]:
    """Images and labels of a cohort that no site has: figures of a simulation are measured on it."""
    read = [image for image in images_of(told.cohort, plan) if isinstance(image, SiteImage)]
    return {"images": np.stack([i.pixels for i in read]), "labels": np.array([i.label for i in read], dtype=np.int64)}


def _deliver_by(source: BinaryIO, sink: BinaryIO) -> Any:
    """What stands for the intake: a package goes up the pipe, and what was said of it comes back."""

    def deliver(data: bytes, plan: Plan) -> None:
        del plan
        package: Arrays = {"package": np.frombuffer(data, dtype=np.uint8)}
        write_frame(sink, {"deliver": True}, package)
        said = read_frame(source)
        if said is None or said[0]["refused"]:
            raise FederationError("the simulation's intake did not take the package")

    return deliver


def main() -> None:
    """Entry point. Standard output is for frames alone: whatever else is printed goes to standard error."""
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with contextlib.suppress(BrokenPipeError):
        answer_questions(source, sink)


if __name__ == "__main__":
    main()
