"""What a class-mean stage states."""

from __future__ import annotations

from typing import Literal

from sfumato_common.generators.settings import OneShotStage, Positive


class ClassMeanStage(OneShotStage):
    """The mean image of every class, once; `spread` is the public deviation of the pixels that are drawn about it."""

    kind: Literal["class-mean"]
    noise_multiplier: Positive
    spread: Positive = 0.3
