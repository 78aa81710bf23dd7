"""The coordinator's pinned public starts: files named by what the plan pins, checked whenever they are read."""

from __future__ import annotations

from pathlib import Path

from sfumato_common.errors import ConfigError
from sfumato_common.generators.starts import read_start, start_key
from sfumato_common.study.plan import Plan
from sfumato_common.study.starts import start_path
from sfumato_common.types import AnyArray


def load_starts(folder: Path, plan: Plan) -> dict[str, dict[str, AnyArray]]:
    """Weights of every pinned start by `start_key(kind)`, for the strategies, which check their hash.

    Raises ConfigError when a file is missing, VerificationError when one does not fit the plan.
    """
    found: dict[str, dict[str, AnyArray]] = {}
    for kind, start in plan.public_starts.items():
        path = start_path(folder, start)
        if not path.exists():
            raise ConfigError(
                f"stage '{kind}' starts from public weights {start.sha256[:16]}... that are not here; "
                "bring them with 'sfumato coordinator init --start FILE'"
            )
        found[start_key(kind)] = read_start(plan, plan.stage(kind), path.read_bytes())
    return found
