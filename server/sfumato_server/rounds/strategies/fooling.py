"""How generators learn from discriminators that are private already: chunks by memory, and when a round is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional

from sfumato_common.memory import rows_at_once
from sfumato_common.rows import row_bytes

BATCH = 64
# the share of generated images that discriminators may take as real, over about so many steps, before the round ends
_FOOLED, _FOOLED_HORIZON = 0.5, 5.0


class Fooled:
    """Whether discriminators are fooled: beyond that they say noise."""

    def __init__(self) -> None:
        self._share = 0.0

    def after(self, believed: float) -> bool:
        """Count a step in which they took that share of images for real."""
        self._share += (believed - self._share) / _FOOLED_HORIZON
        return self._share >= _FOOLED


def descend(score: Callable[..., Tensor], rows: Sequence[Tensor], weight: float = 1.0) -> float:
    """Add the gradient of the loss of `score` on `rows` [N, ...]; the share of them that it takes for real.

    As many images at once as memory allows, a chunk's gradient after the other's: sums differ in their last bits.
    """
    count, believed = len(rows[0]), 0.0
    size = rows_at_once(row_bytes(score, *rows), count)
    for start in range(0, count, size):
        scores = score(*(part[start : start + size] for part in rows))
        loss = weight * functional.softplus(-scores).sum() / count
        loss.backward()  # type: ignore[no-untyped-call]
        believed += float((scores > 0.0).float().sum()) / count
    return believed
