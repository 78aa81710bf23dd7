"""The site's own `flwr-clientapp`: runs the installed app and never unpacks what the coordinator sent.

Flower's SuperNode starts its task commands by bare name. `write_task_commands` fills a folder of the site's, first on
the SuperNode's PATH, with this runner for ClientApps and with refusals for all other tasks (agents, connectors ...).
This module and `egress.supernode_program` are the site's only touch of Flower internals; this one is tied to the one
pinned version and refuses others.
"""

from __future__ import annotations

import io
import logging
import sys
import zipfile
from pathlib import Path
from typing import Any

from sfumato_common.errors import VerificationError
from sfumato_common.files import write_atomic

SUPPORTED_FLOWER = "1.41.0"
# glibc gives large blocks back to the system and maps them anew in every step: a third of a training step's time
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "8589934592"}
_HARMLESS = {"pyproject.toml", "README.md", ".info/CONTENT"}
_LARGEST_BUNDLE_BYTES = 1024 * 1024
_HOOKS = ("install_from_fab", "get_load_client_app_fn", "Error", "push_task_output")


class BundleRefused(VerificationError):
    """The app bundle carries more than its description: it is neither unpacked nor run."""

    wire_code = "bundle-refused"


def inspect_bundle(content: bytes) -> None:
    """Raise BundleRefused unless the bundle (FAB, a zip) holds only pyproject, README and Flower's own list."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as bundle:
            entries = bundle.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        raise BundleRefused("the app bundle is not a readable zip; it was not unpacked") from None
    # names as stored: zipfile itself cuts a name at its first zero byte
    names = [entry.orig_filename for entry in entries]
    if set(names) - _HARMLESS or len(set(names)) != len(names):
        raise BundleRefused("the app bundle carries files beyond its description; it was neither unpacked nor run")
    if sum(entry.file_size for entry in entries) > _LARGEST_BUNDLE_BYTES:
        raise BundleRefused("the app bundle is larger than any description; it was neither unpacked nor run")


def _install_nothing(content: bytes, **_: Any) -> None:
    inspect_bundle(content)


def _silent_error(error_class: Any) -> Any:
    """Flower's Error without its reason: the text of an exception may hold a path or a name (flower.md 7)."""

    def make(code: int, reason: str | None = None) -> Any:
        return error_class(code=code, reason="bundle-refused" if "BundleRefused" in (reason or "") else "failed")

    return make


def install_hooks(runtime: Any, app: Any) -> None:
    """Point Flower's client runtime module at the installed `app`. Refuses when a hook's target is not there."""
    missing = [name for name in _HOOKS if not hasattr(runtime, name)]
    if missing:
        raise VerificationError(f"this Flower lacks '{missing[0]}'; install flwr=={SUPPORTED_FLOWER}")
    push = runtime.push_task_output
    runtime.install_from_fab = _install_nothing
    runtime.get_load_client_app_fn = lambda **_: lambda *_: app
    runtime.Error = _silent_error(runtime.Error)
    runtime.push_task_output = lambda client, context, sub_status, details: push(
        client=client, context=context, sub_status=sub_status, details="failed" if details else ""
    )


def write_task_commands(folder: Path) -> None:
    """Write the executables that a SuperNode may start: ours for ClientApps, a refusal for every other task."""
    from flwr.supercore.constant import TASK_TYPE_TO_COMMAND

    settings = " ".join(f"{name}={value}" for name, value in ALLOCATOR.items())
    for command in TASK_TYPE_TO_COMMAND.values():
        if command == "flwr-clientapp":
            # -P: the working folder must not be able to shadow an installed module
            script = f'#!/bin/sh\nexport {settings}\nexec "{sys.executable}" -P -m sfumato_client.flower.task "$@"\n'
        else:
            script = f'#!/bin/sh\necho "refused: this site runs no {command}" >&2\nexit 1\n'
        write_atomic(folder / command, script, mode=0o700)


def main() -> None:
    """Entry point of the site's `flwr-clientapp`."""
    import flwr

    if flwr.__version__ != SUPPORTED_FLOWER:
        logging.error("refused: flwr %s is installed, this site was tested with %s", flwr.__version__, SUPPORTED_FLOWER)
        raise SystemExit(1)
    from flwr.supernode.cli import flwr_clientapp
    from flwr.supernode.runtime import run_clientapp as runtime

    from sfumato_client.flower.app import app

    install_hooks(runtime, app)
    flwr_clientapp()


if __name__ == "__main__":
    main()
