"""How many rows are computed at once: what memory allows, and nothing else.

The budget is what `--memory` says, or half of what is free: of the machine, and of the control group (cgroup v2 or v1)
that a container is held to. No image, feature or score hangs on it: chunks are whole tiles of `TILE` rows, the last one
filled up, and products of tiles give each row the same last bits however many of them there are (MKL's do in its strict
mode, which the package asks for). Sums over rows do: gradients of a generator's step, and of DP-SGD, may differ in
their last bits from one budget to another.

Every command reads this module before it does anything: it loads no torch, which takes seconds; `rows` does.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sfumato_common.errors import ConfigError

VARIABLE = "SFUMATO_MEMORY"
TILE = 16  # a vector of float32 at its widest: with fewer rows a product takes another path
_SHARE = 0.5  # several parties or processes may share a machine
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_GROUPS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))


def parse_size(text: str) -> int:
    """Bytes of '4GiB', '500M' or '1000000'. Raises ConfigError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    size = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if size < 1:
        raise ConfigError("--memory is a size such as 4GiB or 500MiB")
    return size


def limit_memory(text: str | None) -> None:
    """Hold this process, and those that it starts, to a size; None leaves what was said before."""
    if text is not None:
        os.environ[VARIABLE] = str(parse_size(text))


def budget() -> int:
    """Bytes that a computation may take at once."""
    stated = os.environ.get(VARIABLE)
    return parse_size(stated) if stated else int(_SHARE * free_bytes())


def free_bytes(system: Path = Path("/proc/meminfo"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory that is free, in bytes: of the machine, or of the control group where that is less."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _read(system), re.MULTILINE)
    free = int(found[1]) * 1024 if found else 2**32
    for most, used in _GROUPS:
        limit, taken = _read(groups / most).strip(), _read(groups / used).strip()
        if limit.isdigit() and taken.isdigit():
            free = min(free, max(0, int(limit) - int(taken)))
    return free


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def rows_at_once(row_bytes: int, rows: int, most: int | None = None) -> int:
    """How many of `rows` rows of that many bytes are computed at once: whole tiles, at least one.

    `most` bytes are taken where there is more memory.
    """
    allowed = budget() if most is None else min(budget(), most)
    fit = max(1, allowed // max(1, row_bytes) // TILE) * TILE
    return int(min(fit, whole_tiles(rows)))


def whole_tiles(rows: int) -> int:
    """The least number of rows that is whole tiles and holds `rows`, at least one tile."""
    return max(1, -(-rows // TILE)) * TILE
