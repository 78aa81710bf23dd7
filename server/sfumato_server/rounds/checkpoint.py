"""Checkpoints of a study on the coordinator's disk: safetensors files with a card, one a finished round; no pickle.

A file holds the strategy's state, from which a round loop goes on, and the stage's model as it would be released after
that round. What stands in both is kept once, and the spectral model that every stage starts from is in the spectral
checkpoint beside; when a stage ends, `<stage>-model.safetensors` has all of its model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sfumato_common.errors import VerificationError
from sfumato_common.files import write_atomic, write_json
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays, fingerprint
from sfumato_server.rounds.card import Card, checkpoint_pieces, make_card, read_checkpoint
from sfumato_server.rounds.spool import Spool

_RELEASED = "released/"
_BASE = "spectral"


class Checkpoints:
    """Strategy states and models by (stage, round) under `folder/<plan hash>/`."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder = folder / plan.study_digest
        self._plan = plan

    def save(self, stage: str, number: int, state: Arrays, released: Arrays | None = None) -> None:
        """Keep the state after round `number` of `stage`; atomic, so a crash leaves the previous one."""
        released = released or {}
        arrays: dict[str, AnyArray] = dict(state)
        for name, value in released.items():
            own = stage == _BASE or not name.startswith(f"{_BASE}/")
            if own and not (name in state and (state[name] is value or np.array_equal(state[name], value))):
                arrays[_RELEASED + name] = value
        self._write(f"{stage}-{number:04d}", make_card(self._plan, stage, number, arrays, released), arrays)

    def finish(self, stage: str, released: Arrays) -> None:
        """Keep the final model of `stage`, whole, in a file that needs no other."""
        arrays = {_RELEASED + name: value for name, value in released.items()}
        card = make_card(self._plan, stage, self._plan.stage(stage).rounds, arrays, released)
        self._write(f"{stage}-model", card, arrays)

    def finished(self, stage: str, rounds: int) -> int:
        """The last finished round of a stage; 0 when there is none."""
        return next((number for number in range(rounds, 0, -1) if self._file(stage, number).exists()), 0)

    def latest(self, stage: str, rounds: int) -> tuple[int, dict[str, AnyArray]]:
        """(last finished round, its state), or (0, {}) when the stage has not finished a round."""
        number = self.finished(stage, rounds)
        if not number:
            return 0, {}
        _, arrays = read_checkpoint(self._file(stage, number))
        return number, {name: value for name, value in arrays.items() if not name.startswith(_RELEASED)}

    def _file(self, stage: str, number: int) -> Path:
        return self._folder / f"{stage}-{number:04d}.safetensors"

    @property
    def sums(self) -> Path:
        """Where the steps of secure sums are kept."""
        return self._folder / "sums"

    def spool(self) -> Spool:
        """Where a round's replies lie while the others are waited for."""
        return Spool(self._folder / "replies")

    def _write(self, name: str, card: Card, arrays: Arrays) -> None:
        write_atomic(self._folder / f"{name}.safetensors", checkpoint_pieces(card, arrays))
        write_json(self._folder / f"{name}.card.json", card.model_dump(mode="json"))


def released_model(path: Path) -> tuple[Card, dict[str, AnyArray]]:
    """The card and the whole released model of a checkpoint or a final model, spectral arrays included.

    The spectral arrays may come from the spectral checkpoint beside it. Raises ConfigError and VerificationError.
    """
    card, arrays = read_checkpoint(path)
    if card is None or not card.released:
        raise VerificationError(f"'{path.name}' holds no released model: an earlier version of Sfumato wrote it")
    found = {name: _either(arrays, name) for name in card.released}
    missing = [name for name, value in found.items() if value is None]
    if any(not name.startswith(f"{_BASE}/") for name in missing):
        raise VerificationError(f"the model in '{path.name}' is not whole; ask for the file again")
    base = _spectral_beside(path, card) if missing else {}
    return card, {name: base[name] if value is None else value for name, value in found.items()}


def _either(arrays: Mapping[str, AnyArray], name: str) -> AnyArray | None:
    released = arrays.get(_RELEASED + name)
    return arrays.get(name) if released is None else released


def _spectral_beside(path: Path, card: Card) -> dict[str, AnyArray]:
    beside = path.with_name(f"{_BASE}-0001.safetensors")
    if not beside.is_file():
        raise VerificationError(
            f"'{path.name}' starts from the spectral model, which is not in it; put '{beside.name}' of the same study "
            f"beside it, or use '{card.stage}-model.safetensors'"
        )
    other, arrays = read_checkpoint(beside)
    spectral = {name: value for name, value in arrays.items() if name.startswith(f"{_BASE}/")}
    if other is None or other.plan_hash != card.plan_hash or fingerprint(spectral) != card.spectral_sha256:
        raise VerificationError(
            f"'{beside.name}' belongs to another run than '{path.name}'; put the one of the same run beside it"
        )
    return spectral
