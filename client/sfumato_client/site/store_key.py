"""The key of the site's store: a file outside the store's folder, the home's own or one that is mounted.

Without it nothing in the store can be read: who erases it has erased the images, as far as no copy of the key is left.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from sfumato_common.crypto.pieces import KEY_BYTES
from sfumato_common.errors import ConfigError
from sfumato_common.files import write_atomic

FILE, VARIABLE = "store.key", "SFUMATO_STORE_KEY"
_OURS, _MOUNTED = 0o077, 0o027  # a mounted secret is often its group's to read


def choose_store_key(path: Path | None) -> None:
    """Have this process, and those that it starts, take the key from `path`; None leaves what was said before."""
    if path is not None:
        os.environ[VARIABLE] = str(path.resolve())


def read_store_key(identity: Path) -> bytes:
    """The key that `SFUMATO_STORE_KEY` names, or else the one in the folder `identity`. Raises ConfigError."""
    path, named = _where(identity)
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & (_MOUNTED if named else _OURS):
            raise ConfigError(
                f"the store's key '{path.name}' can be read by others; run chmod 600 on it, and if others could have "
                "read it, remove the store and ingest again under a new key"
            )
        key = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(
            f"the store's key '{path.name}' is missing or is not one: {2 * KEY_BYTES} hexadecimal digits. What lies in "
            "the store cannot be read without it: put it back from a backup, or remove the store and ingest again"
        )
    return key


def make_store_key(identity: Path) -> bytes:
    """`read_store_key`, of a key that is made in the folder `identity` where there is none. Raises ConfigError."""
    path, named = _where(identity)
    if not named and not path.exists():
        write_atomic(path, secrets.token_hex(KEY_BYTES) + "\n", mode=0o600)
    return read_store_key(identity)


def own_store_key(identity: Path) -> Path | None:
    """Where the home's own key is or would be; None while another file is said to be the key."""
    path, named = _where(identity)
    return None if named else path


def _where(identity: Path) -> tuple[Path, bool]:
    named = os.environ.get(VARIABLE, "")
    return (Path(named), True) if named else (identity / FILE, False)


def read_split_key(identity: Path) -> bytes:
    """The secret that keys the patient split. Raises ConfigError before `init`."""
    try:
        return bytes.fromhex((identity / "split.key").read_text().strip())
    except (OSError, ValueError):
        raise ConfigError("this site has no split key; run 'sfumato-site init' first") from None
