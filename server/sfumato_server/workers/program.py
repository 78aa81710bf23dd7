"""One worker: `python -m sfumato_server.workers.program MODULE:FUNCTION`; a task a line in, an answer a line out."""

from __future__ import annotations

import json
import os
import sys

from sfumato_common.generators.base import import_named
from sfumato_server.workers.tasks import done


def main() -> int:
    """Answer until there are no more tasks; what else is printed goes to the log."""
    do = import_named(sys.argv[1])
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        for line in sys.stdin.buffer:
            answers.write(json.dumps(done(do, json.loads(line))).encode("ascii") + b"\n")
            answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
