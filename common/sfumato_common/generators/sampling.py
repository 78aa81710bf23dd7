"""DP sampling: synthetic images drawn from a released model, pure post-processing of its guarantee."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from sfumato_common.generators import GENERATORS
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.mechanisms.draws import Draws
from sfumato_common.types import Arrays, ByteImages, pixel_dtype, to_bytes

# Draws of this many pixels are one block, in which what is drawn first, latents or noise, is drawn for all: it is part
# of what a seed means. How many of them a network computes at once is for memory to say.
_BLOCK_PIXELS, _BLOCK_ROWS = 2**22, 256


def sample_images(
    plan: PublicPlan, kind: str, arrays: Arrays, components: npt.NDArray[np.int64], draws: Draws
) -> ByteImages:
    """Images uint8 (or uint16) [N, S, S] or [N, S, S, 3] for components [N] from the released model of stage `kind`.

    Models and `draws` are on the CPU, also where training uses an accelerator: what a seed draws must not depend on
    there being one.
    """
    bits = plan.image.bits
    if not len(components):
        return np.zeros((0, *plan.image.shape), dtype=pixel_dtype(bits))
    draw = GENERATORS[kind].sampler(plan, arrays)
    block = max(1, min(_BLOCK_ROWS, _BLOCK_PIXELS // plan.image.size**2))
    with torch.no_grad():
        chunks = [to_bytes(draw(y, draws).numpy(), bits) for y in torch.split(torch.from_numpy(components), block)]
    return np.concatenate(chunks)
