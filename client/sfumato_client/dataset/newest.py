"""Which store is the newest that was written here, in a file beside it: an older one that is put back is noticed.

The file is authenticated under the store's key and lies outside the store's folder, so that it does not go with it. A
home that is put back as a whole brings its own: that is the ledger's to notice.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sfumato_client.dataset.encryption import authenticate
from sfumato_common.errors import DataError
from sfumato_common.files import canonical_json, write_atomic

_KIND = "newest"


def newest_file(folder: Path) -> Path:
    """The file of the store at `folder`."""
    return folder.with_name(f"{folder.name}.newest")


def require_newest(folder: Path, mark: str, store_key: bytes) -> None:
    """Raises DataError where the store of that mark is not the last one that was written at `folder`.

    Where nothing is kept, as of a store of before, nothing is said.
    """
    path = newest_file(folder)
    if not path.exists():
        return
    try:
        said = json.loads(path.read_text())
        whole = hmac.compare_digest(str(said.pop("mac")), authenticate(store_key, _KIND, canonical_json(said)))
        marks = {said["newest"], said["coming"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        whole, marks = False, set()
    if not whole:
        raise DataError(
            f"'{path.name}', which says which store is the newest, was altered or is of another key; put it back from "
            f"a backup of the same time, or remove it and the folder '{folder.name}' and ingest again"
        )
    if mark not in marks:
        raise DataError(
            f"store '{folder.name}' is an older one than was written here last: patients who withdrew may be in it, "
            "and others not. Put the newest one back, or remove the folder and ingest again"
        )


@contextmanager
def placing(folder: Path, mark: str, before: str, store_key: bytes) -> Iterator[None]:
    """Within, the store of `mark` takes the place of that of `before` ('' for none); killed there, either counts."""
    _write(folder, before, mark, store_key)
    yield
    _write(folder, mark, "", store_key)


def _write(folder: Path, newest: str, coming: str, store_key: bytes) -> None:
    said = {"newest": newest, "coming": coming or newest}
    mac = authenticate(store_key, _KIND, canonical_json(said))
    write_atomic(newest_file(folder), canonical_json({**said, "mac": mac}), mode=0o600)
