"""A round's replies into the strategy, so that a reply which breaks it costs its own site's part and nothing else."""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Callable, Collection, Mapping

import numpy as np
import torch

from sfumato_common.errors import VerificationError
from sfumato_common.generators.starts import LARGEST_VALUE
from sfumato_common.types import AnyArray, Arrays
from sfumato_server.rounds.strategies import Strategy

log = logging.getLogger(__name__)


def absorb_replies(
    strategy: Strategy, number: int, replies: Mapping[str, Arrays], generator: torch.Generator
) -> tuple[Strategy, set[str]]:
    """(the strategy after the round, the sites whose replies were left out for breaking it).

    Where all replies together cannot be absorbed, or lead to a model that no site would take, those go which cannot be
    absorbed alone; else the one without which the others can. Raises what the strategy raised where that does not
    help: then the fault is not in a reply.
    """
    start = generator.get_state()

    def attempt(sites: Collection[str]) -> Strategy:
        generator.set_state(start)
        trial = copy.deepcopy(strategy)
        trial.absorb(number, {site: _own(replies[site]) for site in sorted(sites)}, generator)
        _check_model(trial.released())
        return trial

    everyone = set(replies)
    try:
        return attempt(everyone), set()
    except Exception as error:
        log.warning("round %d cannot be absorbed (%s); looking for the reply", number, type(error).__name__)
        for guilty in _suspects(everyone, attempt):
            after = _try(attempt, everyone - guilty)
            if after is not None:
                return after, guilty
        raise


def round_draws(seed: int, stage: str, number: int) -> torch.Generator:
    """What a round draws from, by the home's seed: rounds share no draws, and one that is done again has the same."""
    drawn = hashlib.sha256(f"{seed} {stage} {number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(drawn[:7], "big"))


def _suspects(everyone: set[str], attempt: Callable[[Collection[str]], Strategy]) -> list[set[str]]:
    """Whom to leave out, in the order of trial: all that fail alone, then each one."""
    alone = {site for site in sorted(everyone) if _try(attempt, {site}) is None}
    groups = [alone] if 0 < len(alone) < len(everyone) else []
    return groups + [{site} for site in sorted(everyone) if len(everyone) > 1]


def _try(attempt: Callable[[Collection[str]], Strategy], sites: Collection[str]) -> Strategy | None:
    try:
        return attempt(sites)
    except Exception as error:
        # whatever it is: a reply may be crafted for any of them
        log.debug("%d replies cannot be absorbed: %s", len(sites), type(error).__name__)
        return None


def _own(arrays: Arrays) -> dict[str, AnyArray]:
    return {name: np.array(value) for name, value in arrays.items()}


def _check_model(released: Arrays) -> None:
    """Raise VerificationError for a model that sites would refuse, and the study end by."""
    for value in released.values():
        if not np.isfinite(value).all() or (value.size and float(np.abs(value).max()) > LARGEST_VALUE):
            raise VerificationError("the round's model holds values that no training leads to")
