"""A site whose handler answers with the arrays that it was sent and a random number, and reads no patient.

    python -P echo_site.py HOME

All else of it is what hospitals run: the SuperNode, the worker, a fork a message, the packs.
"""

from __future__ import annotations

import sys
from pathlib import Path


def _node(home: str) -> None:
    from sfumato_client.egress import supernode
    from sfumato_client.flower.node import run_node

    installed = supernode.worker_command
    supernode.worker_command = lambda settings: [sys.executable, "-P", __file__, "--worker", *installed(settings)[4:]]
    run_node(Path(home))


class _Echo:
    """Stands for `site.handler.Site`."""

    def __init__(self, *given: object, **more: object) -> None:
        del given, more

    def handle(self, request):
        import random

        from sfumato_common.protocol.messages import PROTOCOL, Reply

        # what is sent back is new: Flower does not carry an object again that the other end has
        arrays = {name: value + value.dtype.type(random.random()) for name, value in request.arrays.items()}
        return Reply(PROTOCOL, "ok", "", "", arrays)


def _worker() -> None:
    import sfumato_client.flower.app as door
    from sfumato_client.flower.worker import main

    door.Site = _Echo
    main()


if __name__ == "__main__":
    if sys.argv[1] == "--worker":
        sys.argv.pop(1)
        _worker()
    else:
        _node(sys.argv[1])
