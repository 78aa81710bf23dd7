"""Checkpoints of a study on the coordinator's disk: safetensors files, one a finished exchange; no pickle."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load, save

from sfumato_common.config.plan import Plan
from sfumato_common.errors import VerificationError
from sfumato_common.files import write_atomic
from sfumato_common.types import AnyArray, Arrays


class Checkpoints:
    """Strategy states by (stage, round) under `folder/<plan hash>/`."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder = folder / plan.digest

    def save(self, stage: str, number: int, state: Arrays) -> None:
        """Keep the state after round `number` of `stage`; atomic, so a crash leaves the previous one."""
        write_atomic(self._path(stage, number), save({name: value.copy() for name, value in state.items()}))

    def latest(self, stage: str, rounds: int) -> tuple[int, dict[str, AnyArray]]:
        """(last finished round, its state), or (0, {}) when the stage has not finished a round."""
        for number in range(rounds, 0, -1):
            path = self._path(stage, number)
            if path.exists():
                try:
                    return number, load(path.read_bytes())
                except SafetensorError:
                    raise VerificationError(
                        f"checkpoint '{path.name}' is damaged; delete it to redo that round"
                    ) from None
        return 0, {}

    def _path(self, stage: str, number: int) -> Path:
        return self._folder / f"{stage}-{number:04d}.safetensors"
