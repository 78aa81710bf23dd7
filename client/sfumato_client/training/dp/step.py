"""One DP-SGD step for patients: clipped sum, secure noise, public denominator (Abadi et al. 2016, Algorithm 1).

The sum is noised in every step, an empty one too, and divided by rate x nominal patients, both public.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from sfumato_client.training import StageJob
from sfumato_client.training.dp.contract import Engine
from sfumato_common.generators.settings import DpSgdStage
from sfumato_common.mechanisms.recorder import NoiseRecorder


def noisy_mean(
    clipped: Sequence[Tensor], stage: DpSgdStage, denominator: float, recorder: NoiseRecorder
) -> list[Tensor]:
    """Gaussian mechanism on a clipped sum, over a public denominator: the private gradient, one tensor a parameter.

    The noise is added on the CPU, wherever the sum was computed.
    """
    flat = np.concatenate([part.cpu().numpy().ravel() for part in clipped], dtype=np.float64)
    released = (
        recorder.sampled_gaussian(flat, stage.clipping_norm, stage.noise_multiplier, stage.sampling_rate) / denominator
    )
    parts = torch.split(torch.from_numpy(released).float(), [part.numel() for part in clipped])
    return [part.reshape(like.shape).to(like.device) for part, like in zip(parts, clipped, strict=True)]


class PrivateGradient:
    """Private gradients of one stage at one site."""

    def __init__(self, job: StageJob[DpSgdStage], engine: Engine) -> None:
        self._engine, self._stage, self._recorder = engine, job.stage, job.recorder
        self._denominator = job.stage.sampling_rate * job.plan.sites[job.site].nominal_patients

    def __call__(self, batches: Iterable[tuple[Sequence[Tensor], Tensor]]) -> list[Tensor]:
        """Noisy mean gradient, one tensor a parameter, of a step's batches: records [P * m, ...], weights [P, m]."""
        bound = self._stage.clipping_norm if self._recorder.protects else math.inf
        sums = [self._engine.clipped_sum(records, bound, weights) for records, weights in batches]
        clipped = [reduce(torch.add, same) for same in zip(*sums, strict=True)]
        return noisy_mean(clipped, self._stage, self._denominator, self._recorder)
