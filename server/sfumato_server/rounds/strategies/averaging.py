"""Checking what sites send back, and moving the weights along the mean update (FedAvg; McMahan et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from sfumato_common.errors import FederationError, VerificationError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators.settings import ServerOptimiser, StageSettings
from sfumato_common.generators.update import UPDATE, Changes, unpack_update
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays, ArraySpec
from sfumato_server.rounds.strategies.combining import combine_updates
from sfumato_server.rounds.strategies.optimisers import ServerStep


def check_replies(plan: Plan, stage: StageSettings, replies: Mapping[str, Arrays]) -> None:
    """Raises when there is no reply, an unknown site, or arrays that are not exactly the schema's and finite."""
    if not replies:
        raise FederationError(f"no site answered in stage '{stage.kind}'; see the sites' own logs")
    schema = EXCHANGES[stage.kind].returned(plan)
    for site, arrays in replies.items():
        if site not in plan.sites:
            raise VerificationError(f"a reply came from '{site}', which the plan does not name; it was dropped")
        if set(arrays) != set(schema):
            raise VerificationError(f"the reply of '{site}' has other arrays than stage '{stage.kind}' sends")
        for name, spec in schema.items():
            if not spec.matches(arrays[name]) or not spec.sound(arrays[name]):
                raise VerificationError(f"array '{name}' of '{site}' has a wrong shape or is not finite")


def move_start(
    plan: Plan, start: Arrays, replies: Mapping[str, Arrays], server: ServerStep | None = None
) -> dict[str, AnyArray]:
    """`start` moved by `server` (None: as it is) along the sites' joint update, float32.

    Sites are weighted by the nominal patients of those that answered.
    """
    server = server or ServerStep(ServerOptimiser())
    patients = np.array([plan.sites[site].nominal_patients for site in sorted(replies)], np.float64)
    weights = {name: ArraySpec("float32", value.shape) for name, value in start.items()}
    updates = [partial(_update_of, replies, site, weights) for site in sorted(replies)]
    return server.move(start, combine_updates(server.settings, updates, patients / patients.sum()))


def _update_of(replies: Mapping[str, Arrays], site: str, weights: Mapping[str, ArraySpec]) -> Changes:
    return unpack_update(replies[site][UPDATE], weights)
