"""The coordinator's pinned public starts: files named by what the plan pins, checked whenever they are read."""

from __future__ import annotations

from pathlib import Path

from safetensors.numpy import save

from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.files import write_atomic
from sfumato_common.generators.starts import read_start, start_key
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, fingerprint


def keep_start(folder: Path, plan: Plan, data: bytes) -> str:
    """Keep a start file in `folder`; returns the kind of the stage that pins it. Raises ConfigError when none does."""
    for kind, start in plan.public_starts.items():
        try:
            weights = read_start(plan, plan.stage(kind), data)
        except VerificationError:
            continue  # another stage's weights
        if fingerprint(weights) == start.sha256:
            write_atomic(folder / f"{start.sha256}.safetensors", save(weights))
            return kind
    raise ConfigError("no stage of the plan pins these weights; put their sha256 into the stage's 'start' first")


def load_starts(folder: Path, plan: Plan) -> dict[str, dict[str, AnyArray]]:
    """Weights of every pinned start by `start_key(kind)`, for the strategies, which check their hash.

    Raises ConfigError when a file is missing, VerificationError when one does not fit the plan.
    """
    found: dict[str, dict[str, AnyArray]] = {}
    for kind, start in plan.public_starts.items():
        path = folder / f"{start.sha256}.safetensors"
        if not path.exists():
            raise ConfigError(
                f"stage '{kind}' starts from public weights {start.sha256[:16]}... that are not here; "
                "bring them with 'sfumato coordinator init --start FILE'"
            )
        found[start_key(kind)] = read_start(plan, plan.stage(kind), path.read_bytes())
    return found
