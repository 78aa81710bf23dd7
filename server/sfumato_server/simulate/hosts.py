"""What runs on a machine of a Ray cluster: one object that holds a worker process and passes frames on to it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from sfumato_common import __version__
from sfumato_common.protocol.frames import read_bytes, write_bytes
from sfumato_common.supervise import Child
from sfumato_server.simulate.workers import start_worker

# Ray says by it which accelerators an actor has; none at all, where it asked for none
_DEVICES = "CUDA_VISIBLE_DEVICES"


class Host:
    """An actor's whole code; Ray makes it on the machine that it chose, from what is installed there."""

    def __init__(self, index: int) -> None:
        self._index, self._own = index, ""
        self._child: Child | None = None

    def place(self) -> tuple[str, str]:
        """(Ray's name of the machine, the version that is installed there)."""
        import ray

        return ray.get_runtime_context().get_node_id(), __version__

    def begin(self, folder: str | None, beside: int) -> str:
        """Start the worker, again where one ran; homes are below `folder`, else a new one of this machine's; which.

        `beside` workers share the machine's memory.
        """
        if self._child is not None:
            self._child.stop()
        if folder is None:
            folder = self._own = tempfile.mkdtemp(prefix="sfumato-simulation-")
        self._folder = Path(folder)
        self._child = start_worker(self._folder, self._index, beside, {_DEVICES: os.environ.get(_DEVICES, "")})
        return folder

    def tell(self, frame: bytes) -> bytes:
        """Pass a frame on to the worker; the next that it writes, nothing when it is gone."""
        assert self._child is not None, "begin comes first"
        try:
            write_bytes(self._child.to_child, frame)
            return read_bytes(self._child.from_child)
        except OSError:
            return b""

    def remove(self, folder: str) -> None:
        """Remove the homes below `folder`."""
        shutil.rmtree(self._folder / folder, ignore_errors=True)

    def stop(self) -> None:
        """End the worker, and remove a folder that was made for it."""
        if self._child is not None:
            self._child.stop()
        if self._own:
            shutil.rmtree(self._own, ignore_errors=True)
