"""Images about the class means."""

from __future__ import annotations

import torch
from sfumato_common.generators.class_mean.schemas import MEANS
from sfumato_common.generators.class_mean.settings import ClassMeanStage
from torch import Tensor

from sfumato_common.generators.base import Draw
from sfumato_common.generators.components import labels_of
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import stage_of
from sfumato_common.mechanisms.draws import Draws
from sfumato_common.types import Arrays


def sampler(plan: PublicPlan, arrays: Arrays) -> Draw:
    """Draws images of components from released arrays."""
    means, spread = torch.tensor(arrays[MEANS]), stage_of(plan, ClassMeanStage).spread

    def draw(y: Tensor, draws: Draws) -> Tensor:
        mean = means[torch.from_numpy(labels_of(plan, y.numpy()))]
        return (mean + spread * draws.normal(mean.shape)).clamp(-1.0, 1.0)

    return draw
