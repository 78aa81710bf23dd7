"""Class-mean stage at the coordinator: the sites' sums added up and divided by their counts."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from sfumato_common.generators.class_mean.schemas import MEANS, released
from sfumato_common.generators.class_mean.settings import ClassMeanStage

from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays
from sfumato_server.rounds.strategies.averaging import check_replies

COUNT_WEIGHT = 0.1


class ClassMeanStrategy:
    """One exchange: sums add up, whatever the sites' sizes."""

    def __init__(self, plan: Plan, stage: ClassMeanStage, released: Mapping[str, Arrays]) -> None:
        self._plan, self._stage = plan, stage
        self._spectral = dict(released["spectral"])
        self._means: dict[str, AnyArray] = {}

    def outbound(self, round_number: int, site: str) -> dict[str, AnyArray]:
        """Nothing."""
        return {}

    def absorb(self, round_number: int, replies: Mapping[str, Arrays], generator: torch.Generator) -> None:
        """Means from the sums of all sites that answered."""
        check_replies(self._plan, self._stage, replies)
        total = np.sum([arrays["sums"] for arrays in replies.values()], axis=0)
        counts = np.maximum(total[:, :1], self._stage.noise_multiplier) / COUNT_WEIGHT
        scale = math.sqrt(total.shape[1] - 1) / math.sqrt(1.0 - COUNT_WEIGHT**2)
        means = np.clip(total[:, 1:] / counts * scale, -1.0, 1.0)
        self._means = {MEANS: means.reshape(released(self._plan)[MEANS].shape).astype(np.float32)}

    def released(self) -> dict[str, AnyArray]:
        """The spectral model and the means."""
        return {**self._spectral, **self._means}

    def state(self) -> dict[str, AnyArray]:
        """The means."""
        return dict(self._means)

    def restore(self, state: Arrays) -> None:
        """Go on from what `state` returned."""
        self._means = dict(state)
