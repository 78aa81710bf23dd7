"""FedProx (Li et al. 2020, "Federated Optimization in Heterogeneous Networks"): a pull towards the round's start.

The local objective gains (mu / 2) |w - w_start|^2. Its gradient is a function of weights that are private already, so
it is added after the noise: post-processing, at no cost, neither clipped nor divided by anybody's count.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


class Proximal:
    """Adds mu (w - w_start) to private gradients; `parameters` stand at the round's start when it is made."""

    def __init__(self, parameters: Iterable[Tensor], mu: float) -> None:
        self._parameters, self._mu = list(parameters), mu
        self._start = [parameter.detach().clone() for parameter in self._parameters] if mu else []

    def __call__(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The gradients with the term added, one a parameter; as they are when mu is 0."""
        if not self._mu:
            return list(gradients)
        with torch.no_grad():
            return [
                gradient + self._mu * (parameter - start)
                for gradient, parameter, start in zip(gradients, self._parameters, self._start, strict=True)
            ]
