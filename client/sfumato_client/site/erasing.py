"""Erasing the site's images by their key: what lies encrypted cannot be read again (NIST SP 800-88, crypto-erase)."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sfumato_client.dataset.newest import newest_file
from sfumato_client.site.home import SiteHome
from sfumato_client.site.ingesting import SHEET
from sfumato_client.site.store_key import own_store_key
from sfumato_common.errors import BusyError, ConfigError
from sfumato_common.files import sync_folder
from sfumato_common.locks import exclusive, is_held


@contextmanager
def nothing_runs(home: SiteHome) -> Iterator[None]:
    """Within, no node, ingest or work on a question of this home runs or begins. Raises BusyError where one does."""
    with ExitStack() as held:
        for link in home.links:
            if link.link.exists():
                held.enter_context(exclusive(link.link, "the site's node ('sfumato-site run')"))
        held.enter_context(exclusive(home.ingesting, "an ingest"))
        require_idle(home)
        yield


def require_idle(home: SiteHome) -> None:
    """Raise BusyError while a question of a study is worked on here, also of one that was left since."""
    if any(is_held(folder) for name in ("turns", "releases") for folder in (home.root / name).glob("*")):
        raise BusyError("a question of a study is still worked on; wait for it, or stop its job")


def erase_store(home: SiteHome) -> list[str]:
    """Erase the store's key, then what it opened; the names of what images are left in, which is not encrypted.

    The caller holds `nothing_runs`. Raises ConfigError where the key is not the home's own, or where there is none.
    """
    path = own_store_key(home.identity)
    if path is None:
        raise ConfigError(
            "the store's key is mounted from elsewhere (SFUMATO_STORE_KEY or --store-key): erase it where it is kept, "
            "then remove the folders 'store' and '.store.partial' of the home"
        )
    if not path.exists():
        raise ConfigError("this home has no key of a store: nothing is left to erase")
    overwrite(path)
    for folder in (home.store, home.store.with_name(f".{home.store.name}.partial")):
        shutil.rmtree(folder, ignore_errors=True)
    newest_file(home.store).unlink(missing_ok=True)
    left = [home.incoming, home.releases, home.steward_folder, home.outbox, home.root / SHEET]
    return [one.name for one in left if one.is_file() or (one.is_dir() and any(one.iterdir()))]


def overwrite(path: Path) -> None:
    """Other bytes in the place of a key, then gone: a backup of what it opened is lost with it."""
    with path.open("r+b") as stream:
        stream.write(secrets.token_bytes(path.stat().st_size))
        stream.flush()
        os.fsync(stream.fileno())
    path.unlink()
    sync_folder(path.parent)
