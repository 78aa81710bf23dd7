"""The password of a PACS: from an environment variable or a file that its owner alone can read, never from YAML."""

from __future__ import annotations

import os
import stat

from sfumato_client.pacs.settings import DicomWeb
from sfumato_common.errors import ConfigError


def password(pacs: DicomWeb) -> str:
    """The password that `pacs` points to. Raises ConfigError, which never quotes it."""
    if pacs.password_env is not None:
        found = os.environ.get(pacs.password_env, "")
        if not found:
            raise ConfigError(f"the environment variable '{pacs.password_env}' is not set; it has to hold the password")
        return found
    path = pacs.password_file
    assert path is not None, "a user has one of the two"
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            content = stream.read(4096)
    except OSError:
        raise ConfigError(f"the password file '{path.name}' cannot be read; check 'password_file'") from None
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"the password file '{path.name}' can be read by others; run chmod 600 on it")
    try:
        found = content.decode().splitlines()[0].strip() if content else ""
    except (UnicodeDecodeError, IndexError):
        found = ""
    if not found:
        raise ConfigError(f"the password file '{path.name}' holds no password in its first line")
    return found
