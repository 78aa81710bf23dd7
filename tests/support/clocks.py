"""A site's node whose every process has another clock than the coordinator: `clocks.py HOME`.

A `sitecustomize` moves the clock of each Python process, SuperNode and worker included, which otherwise get a clean
environment. TLS reads the machine's own clock: how long certificates hold is tested where they are made.
"""

import os
import signal
import sys
from pathlib import Path

FOLDER = Path(__file__).with_name("odd_clock")
VARIABLES = ("PYTHONPATH", "ODD_CLOCK_S")


def environment(hours: int) -> dict[str, str]:
    """What moves a process's clock."""
    return {"PYTHONPATH": str(FOLDER), "ODD_CLOCK_S": str(3600 * hours)}


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
