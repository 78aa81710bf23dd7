"""What a site accepts from the coordinator: weights of the plan's form that honest training could have led to.

The guarantee does not rest on this: clipping and noise hold for any weights. But crafted weights could still choose
what a noised update, or the gate's verdict, is about. So training starts from the plan's public start (drawn from its
digest, or pinned by a hash in it), moves no faster than its optimisers can, and the released spectral model never
changes within a study.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from sfumato_common.errors import VerificationError
from sfumato_common.files import write_atomic, write_json
from sfumato_common.generators.build import initial_model, to_arrays
from sfumato_common.generators.displacement import max_displacement, start_displacement, within_displacement
from sfumato_common.generators.schemas import released_schema
from sfumato_common.generators.starts import LARGEST_VALUE, check_start, fingerprint, own_weights, public_start
from sfumato_common.study.plan import Plan
from sfumato_common.study.release import AnyItem
from sfumato_common.study.stages import DpSgdStage, EmbeddingStage
from sfumato_common.types import AnyArray, Arrays, Schema

_SPECTRAL = "spectral/"
_MISSED = (
    "this site missed the first round of a stage that starts from pinned public weights, so it cannot tell where "
    "training began; it takes no part in that stage"
)


def check_form(arrays: Arrays, schema: Schema) -> None:
    """Raise VerificationError unless `arrays` have exactly the schema's names, dtypes and shapes and sane values."""
    if set(arrays) != set(schema):
        raise VerificationError("the request's arrays are not those of the accepted plan")
    for name, value in arrays.items():
        if not schema[name].matches(value) or not np.isfinite(value).all():
            raise VerificationError("a request's array has another form than in the accepted plan, or is not finite")
        if value.size and float(np.abs(value).max()) > LARGEST_VALUE:
            raise VerificationError("a request's array holds values that no training leads to")


def requested(plan: Plan, site: str, choice: str) -> list[AnyItem]:
    """What the plan's release asks `site` for, with 'best' under the real name of `choice`.

    Raises VerificationError for a choice that the plan does not leave open, or that is none of its models.
    """
    if choice not in plan.choices:
        raise VerificationError("the release request chooses what the accepted plan does not leave to a choice")
    return plan.release_at(site, choice)


def models_of(arrays: Arrays, plan: Plan, release: Sequence[AnyItem]) -> dict[str, dict[str, AnyArray]]:
    """Release arrays `kind:name` by model, each exactly as the plan's schema says. Raises VerificationError."""
    models: dict[str, dict[str, AnyArray]] = {}
    for name, value in arrays.items():
        kind, _, inner = name.partition(":")
        models.setdefault(kind, {})[inner] = value
    if set(models) != {item.model for item in release} | {"spectral"}:
        raise VerificationError("the release request brings other models than the accepted plan releases")
    for kind, values in models.items():
        check_form(values, released_schema(plan, kind))
    return models


class Seen:
    """The last weights that came for each stage of each plan, in a folder of the site's home."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder, self._plan = folder / plan.digest[:16], plan

    def check_round(self, stage: DpSgdStage | EmbeddingStage, kind: str, number: int, arrays: Arrays) -> None:
        """Raise VerificationError when `arrays` of round `number` (from 1) are out of reach of what came before.

        Rounds may be missed, never begun out of order; the first one of a stage with a pinned start may not, as nothing
        else shows this site where training began.
        """
        self._check_spectral(arrays)
        since, before = self._last(kind)
        if (pinned := public_start(self._plan, kind)) is not None and not before:
            if number != 1:
                raise VerificationError(_MISSED)
            check_start(pinned, arrays)
            return
        if number < since:
            # going back and forth between rounds would add up to many times the plan's reach
            raise VerificationError("the request's round is older than one that came before; it is not begun now")
        for model, weights in _by_model(arrays).items():
            last, distance = before.get(model), max_displacement(stage, model, number - since)
            if last is None:
                last = to_arrays(model, initial_model(model, self._plan))
                distance += start_displacement(self._plan, kind, model)
            if not within_displacement(last, weights, distance):
                raise VerificationError("the request's weights are not where the plan's training could have led")

    def keep_round(self, kind: str, number: int, arrays: Arrays) -> None:
        """Remember the weights of round `number`, which have been checked."""
        self._pin_spectral(arrays)
        data = save(own_weights(arrays), metadata={"round": str(number)})
        if public_start(self._plan, kind) is not None and not self._path(kind).exists():
            write_atomic(self._path(f"{kind}-start"), data, mode=0o600)
        write_atomic(self._path(kind), data, mode=0o600)

    def check_release(self, models: dict[str, dict[str, AnyArray]]) -> None:
        """Raise VerificationError when a final model is out of the whole plan's reach, or its spectral part changed."""
        if len({_spectral_digest(arrays) for arrays in models.values()}) != 1:
            raise VerificationError("the final models rest on different spectral models")
        for kind, arrays in models.items():
            self._check_spectral(arrays)
            for model, weights in _by_model(arrays).items():
                stage = self._plan.stage(kind)
                assert isinstance(stage, DpSgdStage | EmbeddingStage)
                start = self._start(kind, model)
                furthest = start_displacement(self._plan, kind, model) + max_displacement(stage, model, stage.rounds)
                if not within_displacement(start, weights, furthest):
                    raise VerificationError("a final model is not where the plan's training could have led")

    def _start(self, kind: str, model: str) -> dict[str, AnyArray]:
        """Weights of `model` that stage `kind` started from. Raises VerificationError when this site never saw them."""
        pinned = public_start(self._plan, kind)
        if pinned is None:
            return to_arrays(model, initial_model(model, self._plan))
        _, weights = self._last(f"{kind}-start")
        if not weights:
            raise VerificationError(_MISSED)
        check_start(pinned, {name: value for part in weights.values() for name, value in part.items()})
        return weights[model]

    def _last(self, kind: str) -> tuple[int, dict[str, dict[str, AnyArray]]]:
        """Round and weights by model of the last request of stage `kind`; round 1's start when there was none."""
        if not self._path(kind).exists():
            return 1, {}
        with safe_open(self._path(kind), framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            return int(file.metadata()["round"]), _by_model(arrays)

    def _check_spectral(self, arrays: Arrays) -> None:
        pinned = self._folder / "spectral.json"
        if pinned.exists() and json.loads(pinned.read_text())["sha256"] != _spectral_digest(arrays):
            raise VerificationError("the released spectral model is another one than in this study's earlier requests")

    def _pin_spectral(self, arrays: Arrays) -> None:
        if not (self._folder / "spectral.json").exists():
            write_json(self._folder / "spectral.json", {"sha256": _spectral_digest(arrays)})

    def _path(self, kind: str) -> Path:
        return self._folder / f"{kind}.safetensors"


def _by_model(arrays: Arrays) -> dict[str, dict[str, AnyArray]]:
    """Trained weights by the model their names begin with; the spectral arrays are left out."""
    models: dict[str, dict[str, AnyArray]] = {}
    for name, value in arrays.items():
        if not name.startswith(_SPECTRAL):
            models.setdefault(name.partition("/")[0], {})[name] = value
    return models


def _spectral_digest(arrays: Arrays) -> str:
    return fingerprint({name: value for name, value in arrays.items() if name.startswith(_SPECTRAL)})
