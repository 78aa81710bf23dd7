"""A reader's process whose files do what their names say: die, spin, sleep, eat memory, babble, call. For tests."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

import numpy as np

from sfumato_client.ingest import reader_program
from sfumato_client.ingest.jobs import Job, ReadFile, Results


def _hostile(read: ReadFile) -> ReadFile:
    def do(job: Job) -> Results:
        name = job.path.name
        if "die" in name:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "spin" in name:
            while True:
                pass
        if "sleep" in name:
            time.sleep(3600)
        if "eat" in name:
            np.ones(2**29)
        if "babble" in name:
            os.write(_ANSWERS, b"\xff" * 4096)
        if "call" in name:
            socket.socket(socket.AF_UNIX if "unix" in name else socket.AF_INET)
        if "print" in name:
            print("a decoder's own words")
        return read(job)

    return do


def main() -> None:
    """`reader_program.main`, with such a reader."""
    make = reader_program.file_reader
    reader_program.file_reader = lambda *terms: _hostile(make(*terms))  # type: ignore[assignment,arg-type]
    reader_program.main()


_ANSWERS = os.dup(1)

if __name__ == "__main__":
    sys.exit(main())
