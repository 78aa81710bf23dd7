"""Where the passphrase of the CA's key comes from: a file or standard input, the environment, or the person."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from sfumato_common.command_line import file_bytes
from sfumato_common.errors import ConfigError

PassphraseFile = Annotated[
    Path | None,
    typer.Option("--ca-passphrase-file", help="Passphrase of the CA's key, '-' for standard input; else it is asked."),
]


def ask_passphrase(file: Path | None, new: bool = False) -> bytes:
    """The passphrase, without a line end; asked twice for a `new` key. Raises ConfigError where nobody can be asked."""
    from sfumato_server.enrol.authority import PASSPHRASE_VARIABLE

    if file is not None:
        given = sys.stdin.buffer.read(4096) if str(file) == "-" else file_bytes(file)
        return given.rstrip(b"\r\n")
    if PASSPHRASE_VARIABLE in os.environ:
        return os.environ[PASSPHRASE_VARIABLE].encode()
    if not sys.stdin.isatty():
        raise ConfigError("nobody can be asked for the passphrase of the CA's key; give --ca-passphrase-file")
    asked: str = typer.prompt("passphrase of the CA's key", hide_input=True, confirmation_prompt=new)
    return asked.encode()
