"""Arrays that came from the coordinator, by the digest of their contents, so that they need not come again.

One folder a study: what came in another is not found. Of each stage, and of the release, the arrays of the last request
are kept. A digest stands for the bytes and nothing else: what it names is checked like what comes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sfumato_common.files import write_atomic, write_json
from sfumato_common.locks import LOCK, in_turn
from sfumato_common.protocol.messages import Request
from sfumato_common.protocol.pack import array_digest, own_name, pack, unpack
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray

_INDEX = "index.json"


class Received:
    """The arrays of one study, in a folder of the site's home."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder = folder / plan.digest[:16]

    def complete(self, request: Request) -> Request | None:
        """`request` with all that it holds back; None where this site lacks some of it, or has it damaged."""
        arrays = dict(request.arrays)
        for name, digest in request.held.items():
            value = self._read(name, digest)
            if value is None:
                return None
            arrays[name] = value
        return replace(request, arrays=arrays, held={})

    def keep(self, request: Request) -> None:
        """Keep the arrays of a complete request, whose form was checked, instead of those of the last one of its kind.

        What a power cut takes is sent again.
        """
        digests = {array_digest(name, value): name for name, value in request.arrays.items()}
        with in_turn(self._folder):
            for digest, name in digests.items():
                if not (path := self._folder / digest).exists():
                    write_atomic(path, pack({own_name(name): request.arrays[name]}), mode=0o600, durable=False)
            index = {**self._index(), f"{request.kind} {request.stage}": sorted(digests)}
            write_json(self._folder / _INDEX, index)
            wanted = {_INDEX, LOCK}.union(*index.values())
            for path in self._folder.iterdir():
                if path.name not in wanted:
                    path.unlink(missing_ok=True)

    def _read(self, name: str, digest: str) -> AnyArray | None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            value = unpack((self._folder / digest).read_bytes())[own_name(name)]
            if array_digest(name, value) == digest:
                return value
        (self._folder / digest).unlink(missing_ok=True)  # damaged: made anew when the array comes again
        return None

    def _index(self) -> Mapping[str, list[str]]:
        try:
            found = json.loads((self._folder / _INDEX).read_text())
            return {str(what): [str(digest) for digest in digests] for what, digests in found.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}
