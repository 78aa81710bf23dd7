"""A round's replies on disk while the others are waited for: memory holds one at a time, however many sites there are.

What lies here is what sites released, as in a checkpoint. It is read back by mapping the file; a round that ends, or
begins anew, clears the folder.
"""

from __future__ import annotations

import mmap
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from sfumato_common.files import make_private_folder, write_atomic
from sfumato_common.protocol.pack import pack, unpack
from sfumato_common.types import AnyArray, Arrays


class Spool(Mapping[str, Arrays]):
    """Replies by site; each look-up reads the file again, and gives read-only views of it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._sites = folder, set[str]()

    def __enter__(self) -> Spool:
        self._clear()
        make_private_folder(self._folder)
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def keep(self, site: str, arrays: Arrays) -> Arrays:
        """Put a site's reply on disk; nothing of it stays in memory."""
        write_atomic(self._path(site), pack(arrays), mode=0o600, durable=False)
        self._sites.add(site)
        return {}

    def __getitem__(self, site: str) -> dict[str, AnyArray]:
        if site not in self._sites:
            raise KeyError(site)
        with self._path(site).open("rb") as file:
            return unpack(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._sites))

    def __len__(self) -> int:
        return len(self._sites)

    def _path(self, site: str) -> Path:
        return self._folder / f"{site}.reply"

    def _clear(self) -> None:
        self._sites.clear()
        if self._folder.exists():
            shutil.rmtree(self._folder)
