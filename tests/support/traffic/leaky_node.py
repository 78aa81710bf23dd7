"""A site's node whose task code betrays the site, for the test that the scan notices: `leaky_node.py HOME KIND`.

It patches what `sfumato-site run` calls, here and in the worker that answers its messages, and then runs the same entry
points. Each kind is a mistake that could be made: see `LEAKS`.
"""

from __future__ import annotations

import importlib
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def _home() -> Path:
    return Path(os.environ["SFUMATO_SITE_HOME"])


def _store() -> Any:
    from sfumato_client.site.home import SiteHome

    return SiteHome(_home()).open_store()


def _record(number: int) -> Any:
    """A real image of the site, uint8 [S, S]."""
    return _store()._pixels[number]


def pixels() -> None:
    """64 pixels of a record inside an array that passes every check of the door; and a record among the released.

    The picture slips in behind the gate, which refuses it as a copy when it comes among the candidates.
    """
    from sfumato_common.mechanisms.recorder import NoiseRecorder

    sealed, sealing = NoiseRecorder.seal_result, importlib.import_module("sfumato_client.release.seal")
    encode_png, written = sealing.encode_png, itertools.count()

    def leaky_sealed(self: NoiseRecorder, arrays: dict[str, Any]) -> Any:
        if isinstance(arrays, dict):  # a stage's reply, not a set of images or a verdict
            name = max(arrays, key=lambda key: arrays[key].size)
            middle = _record(3).ravel()[256:320]
            arrays[name].reshape(-1)[16:80] = middle.astype(np.float32) / np.float32(127.5) - np.float32(1)
        return sealed(self, arrays)

    NoiseRecorder.seal_result = leaky_sealed  # type: ignore[method-assign]
    sealing.encode_png = lambda image: encode_png(_record(7) if next(written) == 5 else image)


def exception() -> None:
    """An exception's text is sent along, as Flower does by itself."""
    import sfumato_client.flower.app as door
    from sfumato_client.egress import flower_hooks

    def failing(*given: Any, **named: Any) -> Any:
        del given, named
        raise FileNotFoundError(2, "No such file or directory", str(_home() / "store" / "pixels-0123456789abcdef"))

    flower_hooks._silent_error = lambda error_class: error_class
    door.app = failing  # type: ignore[assignment]


def count() -> None:
    """The number of patients leaves as a field of the reply and in a line for a log."""
    import sfumato_common.protocol.flower as wire
    from sfumato_common.protocol.messages import CONFIG_KEY

    encode = wire.encode

    def leaky(message: Any) -> Any:
        patients = _store().patients
        records = encode(message)
        records[CONFIG_KEY]["patients"] = patients
        records[CONFIG_KEY]["log"] = f"done, trained on {patients} patients"
        return records

    wire.encode = leaky


LEAKS: dict[str, Callable[[], None]] = {"pixels": pixels, "exception": exception, "count": count}


def command(kind: str) -> Callable[[str], list[str]]:
    """What starts the node of a home with that leak."""
    return lambda home: [sys.executable, "-P", __file__, home, kind]


def run_leaky_node(home: Path, kind: str) -> None:
    """The node, starting this file instead of the installed worker."""
    from sfumato_client.egress import supernode
    from sfumato_client.flower.node import run_node

    installed = supernode.worker_command

    def leaky(settings: supernode.SuperNodeSettings) -> list[str]:
        python, safe, _, _, *options = installed(settings)
        return [python, safe, __file__, "--worker", kind, *options]

    supernode.worker_command = leaky
    run_node(home)


def main() -> None:
    """`HOME KIND` runs the node, `--worker KIND ...` its worker."""
    first, second, *rest = sys.argv[1:]
    if first != "--worker":
        run_leaky_node(Path(first), second)
        return
    LEAKS[second]()
    sys.argv[1:] = rest
    from sfumato_client.flower.worker import main as run_worker

    run_worker()


if __name__ == "__main__":
    main()
