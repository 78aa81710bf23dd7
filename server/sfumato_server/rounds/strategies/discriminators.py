"""The discriminators that a generator learns from: one for all sites, or one a site.

One a site is local-D, shared-G, much as in MD-GAN (Hardy et al. 2019): each learns its own site's images, and the
generator from the mean of their losses, weighted by nominal patients. A site's discriminator knows that site better and
carries all of that site's noise: nothing averages it before the generator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sfumato_common.generators.components import component_shares
from sfumato_common.generators.gan import networks
from sfumato_common.generators.gan.settings import GanStage
from sfumato_common.generators.weights import load_network
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays
from sfumato_server.rounds.strategies.averaging import move_start
from sfumato_server.rounds.strategies.optimisers import ServerStep

_ALL = ""


@dataclass(frozen=True)
class WeighedDiscriminator:
    """A discriminator that is private already, the components [G] it judges (shares) and its weight in the loss."""

    module: nn.Module
    shares: Tensor
    weight: float


class Discriminators:
    """A GAN stage's discriminators by site; `_ALL` is the one that all sites train together."""

    def __init__(self, plan: Plan, stage: GanStage, start: Arrays) -> None:
        self._plan, self._joint, self._start = plan, stage.discriminators == "joint", dict(start)
        self._weights: dict[str, dict[str, AnyArray]] = {}  # only what was trained: the start judges nobody
        names = [_ALL] if self._joint else sorted(plan.sites)
        self._steps = {name: ServerStep(stage.server, _tag("server", name)) for name in names}

    def sent(self, site: str) -> dict[str, AnyArray]:
        """The discriminator that `site` trains next."""
        return dict(self._weights.get(_ALL if self._joint else site, self._start))

    def move(self, replies: Mapping[str, Arrays]) -> None:
        """Follow the sites' updates, which have been checked: their mean, or each site's own."""
        parts = {_ALL: replies} if self._joint else {site: {site: reply} for site, reply in replies.items()}
        for name, part in parts.items():
            start = self._weights.get(name, self._start)
            self._weights[name] = move_start(self._plan, start, part, self._steps[name])

    def panel(self, spectral: Arrays) -> list[WeighedDiscriminator]:
        """Every trained discriminator with what it judges; the weights add up to 1."""
        patients = {name: 1 if name == _ALL else self._plan.sites[name].nominal_patients for name in self._weights}
        return [
            WeighedDiscriminator(
                load_network("discriminator", networks.discriminator, self._plan, self._weights[name]).requires_grad_(
                    False
                ),
                torch.from_numpy(component_shares(self._plan, spectral, name or None)),
                count / sum(patients.values()),
            )
            for name, count in sorted(patients.items())
        ]

    def state(self) -> dict[str, AnyArray]:
        """Weights under `discriminator/` or `discriminator-<site>/`, and the server optimisers' moments."""
        state: dict[str, AnyArray] = {}
        for name, weights in self._weights.items():
            tag = _tag("discriminator", name)
            state |= {f"{tag}/{key.removeprefix('discriminator/')}": value for key, value in weights.items()}
        for step in self._steps.values():
            state |= step.state()
        return state

    def restore(self, state: Arrays) -> None:
        """Go on from what `state` returned, found among the other arrays of a strategy's state."""
        self._weights = {}
        for name, step in self._steps.items():
            tag = _tag("discriminator", name) + "/"
            own = {f"discriminator/{key.removeprefix(tag)}": v for key, v in state.items() if key.startswith(tag)}
            if own:
                self._weights[name] = own
            step.restore(state)


def _tag(what: str, name: str) -> str:
    return f"{what}-{name}" if name else what
