"""torch generators for what is secret but not noise: the patients of a batch, the latents of an image."""

from __future__ import annotations

import numpy as np
import torch

from sfumato_common.mechanisms.noise import NoiseSource

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
