"""Functions of rows a chunk at a time: the same last bits whatever memory allows (see `memory`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sfumato_common.memory import TILE, rows_at_once, whole_tiles


class _Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of all tensors that operations make."""

    bytes: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        made = func(*args, **(kwargs or {}))
        for value in made if isinstance(made, tuple | list) else (made,):
            if isinstance(value, Tensor):
                self.bytes += value.nbytes
        return made


def row_bytes(function: Callable[..., Any], *rows: Tensor) -> int:
    """Bytes that a row of `function` takes with everything kept for a gradient: counted over one tile of `rows`."""
    first = [fill_up(part[:TILE]) for part in rows]
    with torch.no_grad(), _Count() as count:  # type: ignore[no-untyped-call]
        function(*first)
    return int(-(-count.bytes // TILE))


def by_chunks(function: Callable[..., Tensor], *rows: Tensor, most: int | None = None) -> Tensor:
    """`function` of tensors of rows [N, ...], N > 0, a chunk at a time as memory allows -> [N, ...]; no gradient.

    Chunks take `most` bytes where there is more memory.
    """
    count = len(rows[0])
    # one tile is computed whatever it takes: nothing is to be counted
    size = TILE if count <= TILE else rows_at_once(row_bytes(function, *rows), count, most)
    parts = []
    with torch.no_grad():
        for start in range(0, count, size):
            own = [part[start : start + size] for part in rows]
            wanted = len(own[0])
            parts.append(function(*map(fill_up, own))[:wanted])
    return torch.cat(parts)


def fill_up(part: Tensor) -> Tensor:
    """Rows [N, ...] and then copies of the first, until the last tile is whole."""
    missing = whole_tiles(len(part)) - len(part)
    return torch.cat([part, part[:1].expand(missing, *part.shape[1:])]) if missing else part
