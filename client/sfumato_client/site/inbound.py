"""What a site accepts from the coordinator: weights of the plan's form that honest training could have led to.

The guarantee does not rest on this: clipping and noise hold for any weights. But crafted weights could still choose
what a noised update, or the gate's verdict, is about. So training starts from the plan's public start (drawn from its
digest, or pinned by a hash in it), moves no faster than its optimisers can, and the released spectral model, which is
held to what a fit can give, never changes within a study.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load, save

from sfumato_common.errors import VerificationError
from sfumato_common.files import write_atomic, write_json
from sfumato_common.generators import GENERATORS
from sfumato_common.generators.components import for_all_components, schema_at
from sfumato_common.generators.displacement import within_displacement
from sfumato_common.generators.settings import PublicStart, StageSettings
from sfumato_common.generators.starts import (
    LARGEST_VALUE,
    check_start,
    initial_model,
    max_displacement,
    own_weights,
    start_displacement,
)
from sfumato_common.generators.weights import to_arrays
from sfumato_common.study.lineage import given_models
from sfumato_common.study.plan import Plan
from sfumato_common.study.release import AnyItem
from sfumato_common.study.starts import start_path
from sfumato_common.types import AnyArray, Arrays, Schema, fingerprint

_MISSED = (
    "this site missed the first round of a stage that starts from pinned public weights, so it cannot tell where "
    "training began; it takes no part in that stage, unless it is given their file, which the coordinator has, with "
    "'sfumato-site accept --start FILE'"
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


def requested_items(plan: Plan, site: str, choice: str) -> list[AnyItem]:
    """What the plan's release asks `site` for, with 'best' under the real name of `choice`.

    Raises VerificationError for a choice that the plan does not leave open, or that is none of its models.
    """
    if choice not in plan.choices:
        raise VerificationError("the release request chooses what the accepted plan does not leave to a choice")
    return plan.release_at(site, choice)


def models_of(arrays: Arrays, plan: Plan, release: Sequence[AnyItem]) -> dict[str, dict[str, AnyArray]]:
    """Release arrays `kind:name` by model, each as the plan's schema says at a site. Raises VerificationError."""
    models: dict[str, dict[str, AnyArray]] = {}
    for name, value in arrays.items():
        kind, _, inner = name.partition(":")
        models.setdefault(kind, {})[inner] = value
    if set(models) != {item.model for item in release} | {plan.base}:
        raise VerificationError("the release request brings other models than the accepted plan releases")
    for kind, values in models.items():
        check_form(values, schema_at(plan, GENERATORS[kind].released(plan)))
    return models


class Seen:
    """The last weights that came for each stage of each plan, and its fixed arrays, in a folder of the site's home.

    `starts` are the pinned starts that the site was given: where one came late, they say where training began.
    """

    def __init__(self, folder: Path, plan: Plan, starts: Path | None = None) -> None:
        self._folder, self._plan, self._starts = folder / plan.digest[:16], plan, starts

    def check_round(self, stage: StageSettings, number: int, arrays: Arrays) -> None:
        """Raise VerificationError when `arrays` of round `number` (from 1) are out of reach of what came before.

        Rounds may be missed, never begun out of order; the first one of a stage with a pinned start may not, as nothing
        else shows this site where training began. Only models are held against anything: what else a stage sends, such
        as the classifiers of a choice, is made anew from models that were.
        """
        if stage.kind not in GENERATORS:
            return
        self._check_fixed(arrays)
        arrays = self._without_first(stage, arrays)
        since, before = self._last(stage.kind)
        if stage.public_start is not None and not before:
            if number == 1:
                check_start(stage.public_start, arrays)
                return
            before = _by_network(self._given_start(stage.public_start))
        if number < since:
            # going back and forth between rounds would add up to many times the plan's reach
            raise VerificationError("the request's round is older than one that came before; it is not begun now")
        for network, weights in _by_network(arrays).items():
            last, distance = before.get(network), max_displacement(stage, network, number - since)
            if last is None:
                last = to_arrays(network, initial_model(network, self._plan))
                distance += start_displacement(self._plan, stage, network)
            if not within_displacement(last, weights, distance):
                raise VerificationError("the request's weights are not where the plan's training could have led")

    def keep_round(self, stage: StageSettings, number: int, arrays: Arrays) -> None:
        """Remember the weights and fixed arrays of round `number`, which have been checked."""
        if stage.kind not in GENERATORS or not arrays:
            return
        self._pin_fixed(arrays)
        data = save(_of_stage(stage, arrays), metadata={"round": str(number)})
        if stage.public_start is not None and number == 1 and not self._path(stage.kind).exists():
            write_atomic(self._path(f"{stage.kind}-start"), data, mode=0o600)
        write_atomic(self._path(stage.kind), data, mode=0o600)

    def check_release(self, models: dict[str, dict[str, AnyArray]]) -> None:
        """Raise VerificationError when a final model is out of the whole plan's reach, or a fixed array changed."""
        self._check_given(models)
        fixed = [item for arrays in models.values() for item in _fixed_digests(arrays).items()]
        if twice := [part for part, digest in fixed if digest != dict(fixed)[part]]:
            raise VerificationError(f"the final models rest on different {twice[0]} models")
        for kind, arrays in models.items():
            self._check_fixed(arrays)
            stage = self._plan.stage(kind)
            for network, weights in _by_network(self._without_first(stage, arrays)).items():
                furthest = max_displacement(stage, network, stage.rounds)
                furthest += start_displacement(self._plan, stage, network)
                if not within_displacement(self._start(stage, network), weights, furthest):
                    raise VerificationError("a final model is not where the plan's training could have led")

    def _check_given(self, models: dict[str, dict[str, AnyArray]]) -> None:
        """Raise VerificationError when a model that the plan is given is not the one that it pins."""
        pinned = given_models(self._plan)
        if other := [kind for kind in models if pinned and fingerprint(models[kind]) != pinned.get(kind)]:
            raise VerificationError(f"the given {other[0]} model is not the one that the accepted plan pins")

    def _without_first(self, stage: StageSettings, arrays: Arrays) -> dict[str, AnyArray]:
        """The weights of `stage`; networks of the plan's first stage that come with them are the public ones."""
        own = _of_stage(stage, arrays)
        others = {name: value for name, value in own_weights(arrays).items() if name not in own}
        first = self._plan.stage(self._plan.base)
        if others and first.public_start is not None:
            check_start(first.public_start, others)
            return own
        for network, weights in _by_network(others).items():
            drawn = to_arrays(network, initial_model(network, self._plan))
            if not within_displacement(drawn, weights, max_displacement(first, network, first.rounds)):
                raise VerificationError("the first stage's network is not the public one that the plan begins with")
        return own

    def _start(self, stage: StageSettings, network: str) -> dict[str, AnyArray]:
        """Weights of `network` that `stage` started from. Raises VerificationError when this site never saw them."""
        if stage.public_start is None:
            return to_arrays(network, initial_model(network, self._plan))
        _, weights = self._last(f"{stage.kind}-start")
        if not weights:
            weights = _by_network(self._given_start(stage.public_start))
        check_start(stage.public_start, {name: value for part in weights.values() for name, value in part.items()})
        return weights[network]

    def _given_start(self, start: PublicStart) -> dict[str, AnyArray]:
        """The pinned weights that the site was given. Raises VerificationError where it was not, or given others."""
        path = None if self._starts is None else start_path(self._starts, start)
        if path is None or not path.exists():
            raise VerificationError(_MISSED)
        arrays: dict[str, AnyArray] = load(path.read_bytes())
        check_start(start, arrays)
        return arrays

    def _last(self, name: str) -> tuple[int, dict[str, dict[str, AnyArray]]]:
        """Round and weights by network of the last request of a stage; round 1's start when there was none."""
        if not self._path(name).exists():
            return 1, {}
        with safe_open(self._path(name), framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            return int(file.metadata()["round"]), _by_network(arrays)

    def _check_fixed(self, arrays: Arrays) -> None:
        """Hold fixed arrays to those of earlier requests, which were checked; the first ones to what a fit can give."""
        for part, digest in _fixed_digests(arrays).items():
            pinned = self._folder / f"{part}.json"
            if not pinned.exists():
                record = GENERATORS.get(part)
                if record is not None and record.check_fixed is not None:
                    record.check_fixed(self._plan, arrays)
            elif json.loads(pinned.read_text())["sha256"] != digest:
                raise VerificationError(
                    f"the released {part} model is another one than in this study's earlier requests"
                )

    def _pin_fixed(self, arrays: Arrays) -> None:
        for part, digest in _fixed_digests(arrays).items():
            if not (self._folder / f"{part}.json").exists():
                write_json(self._folder / f"{part}.json", {"sha256": digest})

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.safetensors"


def _by_network(arrays: Arrays) -> dict[str, dict[str, AnyArray]]:
    """Trained weights by the network that their names begin with; fixed arrays are left out."""
    return _by_part(own_weights(arrays))


def _of_stage(stage: StageSettings, arrays: Arrays) -> dict[str, AnyArray]:
    """The weights that `stage` trains or pins itself: those of its record's networks."""
    networks = GENERATORS[stage.kind].networks
    return {name: value for name, value in own_weights(arrays).items() if name.partition("/")[0] in networks}


def _fixed_digests(arrays: Arrays) -> dict[str, str]:
    """Digest of the fixed arrays by the kind that their names begin with: what is no network's weight."""
    weights = own_weights(arrays)
    parts = _by_part({name: value for name, value in arrays.items() if name not in weights})
    return {kind: fingerprint(part) for kind, part in parts.items()}


def _by_part(arrays: Arrays) -> dict[str, dict[str, AnyArray]]:
    parts: dict[str, dict[str, AnyArray]] = {}
    for name, value in arrays.items():
        parts.setdefault(name.partition("/")[0], {})[name] = value
    return parts


def final_models(seen: Seen, plan: Plan, site: str, choice: str, arrays: Arrays) -> dict[str, Arrays]:
    """The models that a release is made from, checked: of the plan's form, and within its training's reach."""
    models = models_of(arrays, plan, requested_items(plan, site, choice))
    seen.check_release(models)
    schemas = {kind: GENERATORS[kind].released(plan) for kind in models}
    return {kind: for_all_components(plan, schemas[kind], found) for kind, found in models.items()}
