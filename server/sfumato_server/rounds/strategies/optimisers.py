"""Server optimisers: how the model follows the sites' mean update ("Adaptive Federated Optimization", Reddi 2021).

With D the mean update of a round: `average` is w += a D (FedAvg; McMahan et al. 2017); `momentum` is m = b m + D,
w += a m (FedAvgM; Hsu et al. 2019); `adam` is m = b m + (1 - b) D, v = c v + (1 - c) D^2, w += a m / (sqrt(v) + t)
(FedAdam; Algorithm 2 of Reddi et al., which corrects no bias). D is private already: all of it is post-processing. How
far it can move a weight is bounded in `generators.displacement`, against which sites hold what they are sent.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sfumato_common.generators.displacement import SERVER_ADAPTIVITY, SERVER_SECOND_MOMENT
from sfumato_common.generators.settings import ServerOptimiser
from sfumato_common.types import AnyArray, Arrays


class ServerStep:
    """Moves weights by mean updates and keeps the moments; `name` tells several of one strategy apart in its state."""

    def __init__(self, settings: ServerOptimiser, name: str = "server") -> None:
        self.settings, self._prefix = settings, f"{name}/"
        self._moments: dict[str, AnyArray] = {}

    def move(self, weights: Arrays, update: Arrays) -> dict[str, AnyArray]:
        """The weights after one step along `update`, float32; both have the same names and shapes."""
        direction = _DIRECTIONS[self.settings.kind]
        rate = self.settings.learning_rate
        return {
            name: np.asarray(weights[name].astype(np.float64) + rate * direction(self, name, change), np.float32)
            for name, change in update.items()
        }

    def state(self) -> dict[str, AnyArray]:
        """The moments, float64, by `<name>/<first or second>/<weight>`; nothing for a plain average."""
        return {self._prefix + name: value.copy() for name, value in self._moments.items()}

    def restore(self, state: Arrays) -> None:
        """Go on from what `state` returned, found among the other arrays of a strategy's state."""
        own = {name: value for name, value in state.items() if name.startswith(self._prefix)}
        self._moments = {name.removeprefix(self._prefix): value.astype(np.float64) for name, value in own.items()}

    def _average(self, name: str, change: AnyArray) -> AnyArray:
        return change

    def _momentum(self, name: str, change: AnyArray) -> AnyArray:
        return self._decay_moment("first", name, self.settings.momentum, change)

    def _adam(self, name: str, change: AnyArray) -> AnyArray:
        decay, second = self.settings.momentum, SERVER_SECOND_MOMENT
        m = self._decay_moment("first", name, decay, (1.0 - decay) * change)
        v = self._decay_moment("second", name, second, (1.0 - second) * np.square(change))
        return np.asarray(m / (np.sqrt(v) + SERVER_ADAPTIVITY))

    def _decay_moment(self, moment: str, name: str, decay: float, added: AnyArray) -> AnyArray:
        """The moment after it decayed and `added` came; it starts at zero."""
        key = f"{moment}/{name}"
        self._moments[key] = decay * self._moments.get(key, np.zeros_like(added)) + added
        return self._moments[key]


_DIRECTIONS: dict[str, Callable[[ServerStep, str, AnyArray], AnyArray]] = {
    "average": ServerStep._average,
    "momentum": ServerStep._momentum,
    "adam": ServerStep._adam,
}
