"""A site's node whose worker is slow to start and can be made to crash: `odd_worker.py SECONDS HOME`.

The worker sleeps SECONDS before its imports, as on a machine that needs so long for them. A task whose home holds a
file `crash` takes it away and ends as by a fault of its own; one that finds `hang` in its training takes it away and
waits for ever, while the threads of its heartbeats go on. Hanging is noticed in ten seconds.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path


def command(seconds: float) -> list[str]:
    """What runs the node of a home with such a worker."""
    return [sys.executable, "-P", __file__, str(seconds)]


def _node(seconds: str, home: str) -> None:
    from sfumato_client.egress import supernode
    from sfumato_client.flower.node import run_node

    # a background job's children ignore Ctrl-C, and this one stands for what a person runs in a terminal
    signal.signal(signal.SIGINT, signal.default_int_handler)
    installed = supernode.worker_command
    supernode.worker_command = lambda settings: [
        sys.executable, "-P", __file__, "--worker", seconds, *installed(settings)[4:]
    ]  # fmt: skip
    run_node(Path(home))


def _worker(seconds: str) -> None:
    time.sleep(float(seconds))
    import sfumato_client.flower.app as door
    from sfumato_client import training
    from sfumato_client.flower.worker import main
    from sfumato_client.site import watch

    app = door.app

    def crashing(*given, **named):
        if (crash := Path(os.environ["SFUMATO_SITE_HOME"], "crash")).exists():
            crash.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return app(*given, **named)

    train = training.train

    def hanging(job):
        if (hang := Path(os.environ["SFUMATO_SITE_HOME"], "hang")).exists():
            hang.unlink()
            threading.Event().wait()
        return train(job)

    door.app, training.train, watch.HUNG_SECONDS = crashing, hanging, 10.0
    main()


if __name__ == "__main__":
    if sys.argv[1] == "--worker":
        seconds, sys.argv[1:] = sys.argv[2], sys.argv[3:]
        _worker(seconds)
    else:
        _node(*sys.argv[1:])
