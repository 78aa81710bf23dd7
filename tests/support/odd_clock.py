"""A site's node whose every process has another clock than the coordinator: `odd_clock.py HOME`, by libfaketime.

The variables that preload it are passed on to SuperNode and worker, which otherwise get a clean environment.
"""

import os
import signal
import sys
from pathlib import Path

VARIABLES = ("LD_PRELOAD", "FAKETIME", "DONT_FAKE_MONOTONIC")
LIBRARIES = list(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


def environment(hours: int) -> dict[str, str]:
    """What shifts a process's clock."""
    return {"LD_PRELOAD": str(LIBRARIES[0]), "FAKETIME": f"{hours:+d}h", "DONT_FAKE_MONOTONIC": "1"}


def command(home: Path) -> list[str]:
    """What runs the node of a home."""
    return [sys.executable, "-P", __file__, str(home)]


def main() -> None:
    from sfumato_client.egress import supernode
    from sfumato_client.flower.node import run_node

    signal.signal(signal.SIGINT, signal.default_int_handler)
    clean = supernode._environment
    odd = {name: os.environ[name] for name in VARIABLES}
    supernode._environment = lambda settings: {**clean(settings), **odd}
    run_node(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
