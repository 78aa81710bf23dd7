"""Work on an accelerator that is recorded once and replayed, as CUDA graphs are.

The kernels of a small network end sooner than Python launches the next ones; replayed, they follow each other at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sfumato_common.mechanisms.draws import TorchDraws

_WARM = 3  # calls before the recording, in which optimisers get their state and libraries choose their kernels


class Recorded:
    """A function of tensors of one shape each, all on the accelerator, that is recorded at the fourth call.

    It must read nothing back, and draw from `draws` alone, whose sequence goes on from replay to replay. What it
    returns is overwritten by the next call.
    """

    def __init__(self, work: Callable[..., Tensor], draws: TorchDraws) -> None:
        self._work, self._draws = work, draws
        self._calls, self._graph = 0, torch.cuda.CUDAGraph()
        self._given: list[Tensor] = []
        self._result: Tensor | None = None

    def __call__(self, *given: Tensor) -> Tensor:
        """What the function returns of `given`."""
        self._calls += 1
        if self._calls <= _WARM:
            return self._apart(given)
        if self._result is None:
            self._record(given)
        for own, new in zip(self._given, given, strict=True):
            own.copy_(new)
        self._graph.replay()
        assert self._result is not None, "recorded above"
        return self._result

    def _apart(self, given: tuple[Tensor, ...]) -> Tensor:
        """A plain call, on a stream of its own, as one is recorded."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            result = self._work(*given)
        torch.cuda.current_stream().wait_stream(stream)
        return result

    def _record(self, given: tuple[Tensor, ...]) -> None:
        self._given = [part.clone() for part in given]
        self._draws.register(self._graph)
        with torch.cuda.graph(self._graph):
            self._result = self._work(*self._given)
