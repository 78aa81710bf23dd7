"""Where a passphrase comes from: a file or standard input, or the person."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from sfumato_common.command_line import file_bytes
from sfumato_common.errors import ConfigError


def ask_passphrase(file: Path | None, what: str, option: str, new: bool = False) -> bytes:
    """The passphrase, without a line end; asked twice for a `new` one. Raises ConfigError where nobody can be asked."""
    if file is not None:
        given = sys.stdin.buffer.readline(4096) if str(file) == "-" else file_bytes(file)
        return given.rstrip(b"\r\n")
    if not sys.stdin.isatty():
        raise ConfigError(f"nobody can be asked for the {what}; give {option}")
    asked: str = typer.prompt(what, hide_input=True, confirmation_prompt=new)
    return asked.encode()
