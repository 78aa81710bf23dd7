"""What released models are sampled from: one small interface for a site's published stream and for torch's generators.

Nothing that decides about a record is drawn through it; `streams.py` says why.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor


class Draws(ABC):
    """Draws of what may be seen: prior latents, synthesis noise, conditions, component labels."""

    @abstractmethod
    def normal(self, shape: Sequence[int]) -> Tensor:
        """Independent N(0, 1), float32."""

    @abstractmethod
    def categorical(self, weights: Tensor, count: int) -> Tensor:
        """Indices int64 [count] of `weights` [K], which need not sum to 1, with replacement."""

    @abstractmethod
    def integers(self, below: int, count: int) -> Tensor:
        """Independent integers int64 [count] from 0 to `below` - 1."""


class TorchDraws(Draws):
    """Draws of a torch.Generator: public seeds, the coordinator's post-processing, and fakes that a site trains with.

    A Mersenne Twister (MT19937) is linear over GF(2): some 20,000 bits of what it drew give all the rest. So what it
    draws must be neither secret nor published by a site.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def on(self, device: torch.device) -> TorchDraws:
        """Draws on `device`: these where they are there already, others under a seed of theirs where not."""
        if device.type == self._generator.device.type:
            return self
        return TorchDraws(torch.Generator(device).manual_seed(int(self.integers(2**62, 1))))

    def register(self, graph: torch.cuda.CUDAGraph) -> None:
        """Let every replay of `graph`, which draws from these, go on where the last one ended."""
        graph.register_generator_state(self._generator)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Independent N(0, 1), float32, drawn where the generator is."""
        return torch.randn(tuple(shape), generator=self._generator, device=self._generator.device)

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Independent uniforms in [0, 1), float32."""
        return torch.rand(tuple(shape), generator=self._generator, device=self._generator.device)

    def categorical(self, weights: Tensor, count: int) -> Tensor:
        """Indices int64 [count] of `weights` [K], with replacement."""
        return torch.multinomial(weights, count, replacement=True, generator=self._generator)

    def integers(self, below: int, count: int) -> Tensor:
        """Independent integers int64 [count] from 0 to `below` - 1."""
        return torch.randint(below, (count,), generator=self._generator, device=self._generator.device)
