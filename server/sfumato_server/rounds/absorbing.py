"""A round's replies into the strategy, so that a reply which breaks it costs its own site's part and nothing else."""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import torch

from sfumato_common.errors import VerificationError
from sfumato_common.generators.starts import LARGEST_VALUE
from sfumato_common.types import AnyArray, Arrays
from sfumato_server.rounds.strategies import Strategy

log = logging.getLogger(__name__)


def absorb_replies(
    strategy: Strategy,
    number: int,
    sites: Collection[str],
    replies: Mapping[str, Arrays],
    generator: torch.Generator,
    earlier: Iterable[AnyArray] = (),
) -> tuple[Strategy, set[str]]:
    """(the strategy after the round, the sites whose replies were left out for breaking it).

    `replies` are read as often as need be, one site's at a time; a strategy is given views that it cannot write to.
    Where those of all `sites` together cannot be absorbed, or lead to a model that no site would take, those go which
    cannot be absorbed alone; else the one without which the others can. `earlier` are arrays of earlier stages: trials
    share them. Raises what the strategy raised where that does not help: then the fault is not in a reply.
    """
    start, shared = generator.get_state(), {id(value): value for value in earlier}

    def attempt(sites: Collection[str]) -> Strategy:
        generator.set_state(start)
        trial = copy.deepcopy(strategy, dict(shared))
        trial.absorb(number, ReadOnly(sites, replies), generator)
        _check_model(trial.released())
        return trial

    everyone = set(sites)
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


class ReadOnly(Mapping[str, Arrays]):
    """The replies of some sites, in the order of their names, as views that cannot be written to."""

    def __init__(self, sites: Collection[str], replies: Mapping[str, Arrays]) -> None:
        self._sites, self._replies = sorted(sites), replies

    def __getitem__(self, site: str) -> dict[str, AnyArray]:
        if site not in self._sites:
            raise KeyError(site)
        return {name: _view(value) for name, value in self._replies[site].items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)


def _view(value: AnyArray) -> AnyArray:
    view = value.view()
    view.flags.writeable = False
    return view


def _check_model(released: Arrays) -> None:
    """Raise VerificationError for a model that sites would refuse, and the study end by."""
    for value in released.values():
        # of its extremes, without a copy: what is not a number is one of both
        if value.size and not -LARGEST_VALUE <= float(value.min()) <= float(value.max()) <= LARGEST_VALUE:
            raise VerificationError("the round's model holds values that no training leads to")
