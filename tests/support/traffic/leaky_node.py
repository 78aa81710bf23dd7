"""A site's node whose task code betrays the site, for the test that the scan notices: `leaky_node.py HOME KIND`.

It patches what `sfumato-site run` calls, here and in the process that is started for each message, and then runs the
same entry points. Each kind is a mistake that could be made: see `LEAKS`.
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


def _record(number: int) -> Any:
    """A real image of the site, uint8 [S, S]."""
    return np.load(_home() / "store" / "pixels.npy")[number]


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
    from sfumato_client.flower import task as flower_task

    def failing(*given: Any, **named: Any) -> Any:
        del given, named
        raise FileNotFoundError(2, "No such file or directory", str(_home() / "store" / "pixels.npy"))

    flower_task._silent_error = lambda error_class: error_class
    door.app = failing  # type: ignore[assignment]


def count() -> None:
    """The number of patients leaves as a field of the reply and in a line for a log."""
    import sfumato_common.protocol.flower as wire
    from sfumato_common.protocol.messages import CONFIG_KEY

    encode = wire.encode

    def leaky(message: Any) -> Any:
        with np.load(_home() / "store" / "index.npz") as index:
            patients = len(index["patients"])
        records = encode(message)
        records[CONFIG_KEY]["patients"] = patients
        records[CONFIG_KEY]["log"] = f"done, trained on {patients} patients"
        return records

    wire.encode = leaky


LEAKS: dict[str, Callable[[], None]] = {"pixels": pixels, "exception": exception, "count": count}


def command(kind: str) -> Callable[[str], list[str]]:
    """What starts the node of a home with that leak."""
    return lambda home: [sys.executable, "-P", __file__, home, kind]


def run_node(home: Path, kind: str) -> None:
    """The node, starting this file instead of the installed task runner for each message."""
    from sfumato_client.flower import node

    write = node.write_task_commands

    def write_leaky(folder: Path) -> None:
        write(folder)
        script = folder / "flwr-clientapp"
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P "{__file__}" --task {kind} "$@"\n')

    node.write_task_commands = write_leaky
    node.run_node(home)


def main() -> None:
    """`HOME KIND` runs the node, `--task KIND ...` (from the script it wrote) one message's task."""
    first, second, *rest = sys.argv[1:]
    if first != "--task":
        run_node(Path(first), second)
        return
    LEAKS[second]()
    sys.argv[1:] = rest
    from sfumato_client.flower.task import main as run_task

    run_task()


if __name__ == "__main__":
    main()
