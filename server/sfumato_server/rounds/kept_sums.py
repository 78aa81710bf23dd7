"""The steps of a secure sum on the coordinator's disk: what is kept is masked, sealed to sites, or the sum itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from sfumato_common.files import write_atomic
from sfumato_common.protocol.pack import pack, unpack
from sfumato_common.types import AnyArray, Arrays


class Kept:
    """What sites said in each step of one sum, in a folder of the checkpoints."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder / name

    @property
    def attempt(self) -> int:
        """The attempt under way, from 1."""
        path = self._folder / "attempt"
        return int(path.read_text()) if path.exists() else 1

    def begin_anew(self) -> None:
        """The next attempt, of other keys."""
        number = self.attempt + 1
        shutil.rmtree(self._folder, ignore_errors=True)
        write_atomic(self._folder / "attempt", f"{number}\n")

    def once(self, step: str, ask: Callable[[], Mapping[str, Arrays]]) -> dict[str, dict[str, AnyArray]]:
        """What sites said in `step`, by site: as it was kept, or as `ask` finds it now."""
        path = self._folder / f"{step}.pack"
        if not path.exists():
            said = {f"{site}:{name}": value for site, own in ask().items() for name, value in own.items()}
            write_atomic(path, pack(said), mode=0o600)
        found: dict[str, dict[str, AnyArray]] = {}
        for name, value in unpack(path.read_bytes()).items():
            site, _, inner = name.partition(":")
            found.setdefault(site, {})[inner] = value
        return found
