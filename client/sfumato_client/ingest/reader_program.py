"""A reader's process, without a network: takes jobs, one a line, and answers each with its results. `pool` starts it.

It may crash, hang or run out of memory: that is one file's reason then, and not the end of an ingest.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydantic import TypeAdapter

from sfumato_client.ingest.jobs import Job, do
from sfumato_client.ingest.offline import leave_network
from sfumato_client.ingest.records import Skipped
from sfumato_client.ingest.results import STEP, to_bytes
from sfumato_client.ingest.sources import AnySource, SourceConfig, file_reader, prepare
from sfumato_common.study.terms import ImageForm

_MEMORY = 2**30  # that one file may take, beyond what the libraries have


def main() -> None:
    """Serve jobs from standard input until it ends."""
    leave_network()  # where the system cannot refuse it one, `sfumato-site check` says so
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # decoders print; the pipe is for results alone
    serve(sys.stdin.buffer, answers)


def serve(questions: BinaryIO, answers: BinaryIO) -> None:
    """The first line says source, form and labels; every other one is a job."""
    terms = json.loads(questions.readline())
    described: Any = TypeAdapter(cast(Any, SourceConfig))
    source: AnySource = described.validate_json(json.dumps(terms["source"]))
    read = file_reader(source, ImageForm(**terms["form"]), terms["labels"])
    assert read is not None, "the source has no files"
    prepare(source)
    _limit()

    def step() -> None:
        answers.write(STEP)
        answers.flush()

    for line in questions:
        said = json.loads(line)
        job = Job(Path(said["path"]), said["row"], said["splits"], step)
        try:
            results = do(read, job)
        except Exception:  # a reader's own fault: one file's reason
            results = [Skipped(job.row["file"], "the file is damaged: it cannot be read")]
        answers.write(to_bytes(results))
        answers.flush()


def _limit() -> None:
    """No more memory than now and 1 GiB, and no core file: it would hold patients' images."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    status = Path("/proc/self/statm")
    if status.exists():
        now = int(status.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + _MEMORY, now + _MEMORY))


if __name__ == "__main__":
    main()
