"""Pinned public starts on disk: files named by what the plan pins, which hold the weights of one stage."""

from __future__ import annotations

from pathlib import Path

from safetensors.numpy import save

from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.files import write_atomic
from sfumato_common.generators.settings import PublicStart
from sfumato_common.generators.starts import read_start
from sfumato_common.study.plan import Plan
from sfumato_common.types import fingerprint


def start_path(folder: Path, start: PublicStart) -> Path:
    """Where the weights of `start` lie in `folder`."""
    return folder / f"{start.sha256}.safetensors"


def keep_start(folder: Path, plan: Plan, data: bytes) -> str:
    """Keep a start file in `folder`; returns the kind of the stage that pins it. Raises ConfigError when none does."""
    for kind, start in plan.public_starts.items():
        try:
            weights = read_start(plan, plan.stage(kind), data)
        except VerificationError:
            continue  # another stage's weights
        if fingerprint(weights) == start.sha256:
            write_atomic(start_path(folder, start), save(weights))
            return kind
    raise ConfigError("no stage of the plan pins these weights; put their sha256 into the stage's 'start' first")
