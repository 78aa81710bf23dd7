"""One DP-SGD step for patients: Poisson batch, clipped sum, secure noise, public denominator (Abadi et al. 2016).

A patient joins a batch with the plan's rate, independently, and brings one image: clipping per record is then clipping
per patient. The sum is noised in every step, an empty one too, and divided by rate x nominal patients, both public.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from sfumato_client.training import StageJob, TrainingCohort
from sfumato_client.training.dp.engines import Engine
from sfumato_common.config.plan import DpSgdStage
from sfumato_common.privacy.meter import Meter
from sfumato_common.privacy.noise import NoiseSource
from sfumato_common.types import to_unit_range

_STATE_OFFSET, _STATE_WORDS = 24, 624


def secret_generator(noise: NoiseSource) -> torch.Generator:
    """A torch.Generator whose whole Mersenne Twister state comes from `noise`.

    `manual_seed` keeps only 32 bits, few enough to try them all, and the gain from subsampling needs secret batches.
    """
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state().numpy().copy()
    words = np.floor(noise.uniform((_STATE_WORDS,)) * 2.0**32).astype("<u8")
    state[_STATE_OFFSET : _STATE_OFFSET + 8 * _STATE_WORDS] = words.view(np.uint8)
    generator.set_state(torch.from_numpy(state))
    return generator


def patient_batches(
    cohort: TrainingCohort, rate: float, steps: int, generator: torch.Generator, form: Sequence[int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """`steps` Poisson batches over patients (Opacus's sampler): images [B, C, S, S], labels [B]; B varies, also 0.

    `form` is (C, S, S), for the shape of an empty batch.
    """
    # imported here: Opacus costs 2 s, and only DP-SGD stages come this way
    from opacus.utils.uniform_sampler import UniformWithReplacementSampler

    sampler = UniformWithReplacementSampler(
        num_samples=cohort.patients, sample_rate=rate, generator=generator, steps=steps
    )
    for patients in sampler:
        images, labels = [], []
        for patient in patients:
            own, own_labels = cohort.images_of(patient)
            chosen = int(torch.randint(len(own), (1,), generator=generator))
            images.append(own[chosen])
            labels.append(int(own_labels[chosen]))
        pixels = torch.from_numpy(to_unit_range(np.stack(images))) if images else torch.zeros(0, *form)
        yield pixels, torch.tensor(labels, dtype=torch.int64)


def noisy_mean(clipped: Sequence[Tensor], stage: DpSgdStage, denominator: float, meter: Meter) -> list[Tensor]:
    """Gaussian mechanism on a clipped sum, over a public denominator: the private gradient, one tensor a parameter."""
    flat = np.concatenate([part.numpy().ravel() for part in clipped]).astype(np.float64)
    released = (
        meter.sampled_gaussian(flat, stage.clipping_norm, stage.noise_multiplier, stage.sampling_rate) / denominator
    )
    parts = torch.split(torch.from_numpy(released).float(), [part.numel() for part in clipped])
    return [part.reshape(like.shape) for part, like in zip(parts, clipped, strict=True)]


class PrivateGradient:
    """Private gradients of one stage at one site."""

    def __init__(self, job: StageJob, stage: DpSgdStage, engine: Engine) -> None:
        self._engine, self._stage, self._meter = engine, stage, job.meter
        self._denominator = stage.sampling_rate * job.plan.sites[job.site].nominal_patients

    def __call__(self, records: Sequence[Tensor]) -> list[Tensor]:
        """Noisy mean gradient over `records`, one tensor a parameter."""
        clipped = self._engine.clipped_sum(records, self._stage.clipping_norm)
        return noisy_mean(clipped, self._stage, self._denominator, self._meter)
