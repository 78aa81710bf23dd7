"""How near a reconstruction is to its image: error, what is fine, and how much of the fine is left at all.

The three pull apart: noise of the right power keeps gradient energy and ruins the correlation, smoothing keeps PSNR.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sfumato_common.types import AnyArray, to_unit_range

FINE = 8  # pixels a side of the windows whose means are not fine
_TINY = 1e-12


class Reconstruction(NamedTuple):
    """Means over images: PSNR in dB of a range of 2; correlation of what is finer than 8 px; gradient energy kept."""

    psnr: float
    fine: float
    energy: float


def reconstruction_scores(images: AnyArray, made: AnyArray) -> Reconstruction:
    """Scores of float reconstructions [N, C, S, S] in [-1, 1] of integer images [N, S, S] or [N, S, S, 3].

    Reconstructions are cut to the range first, as a file would. Gradient energy is the sum of squared differences to
    the right and below; its share is of the whole set, so that flat images do not decide.
    """
    real = torch.from_numpy(to_unit_range(images)).float()
    drawn = torch.from_numpy(np.asarray(made, dtype=np.float32)).clamp(-1.0, 1.0)
    squared = (real - drawn).square().mean(dim=(1, 2, 3)).clamp_min(_TINY)
    own, other = (_fine(x).flatten(1) for x in (real, drawn))
    correlation = functional.cosine_similarity(own, other, dim=1)
    return Reconstruction(
        psnr=float((10.0 * torch.log10(4.0 / squared)).mean()),
        fine=float(correlation.mean()),
        energy=float(_gradient_energy(drawn) / max(_TINY, _gradient_energy(real))),
    )


def _fine(x: Tensor) -> Tensor:
    """What is left of [N, C, S, S] without the mean of the 8 x 8 pixels around; edges are mirrored."""
    before, after = FINE // 2, FINE - 1 - FINE // 2
    padded = functional.pad(x, [before, after, before, after], mode="reflect")
    return x - functional.avg_pool2d(padded, FINE, stride=1)


def _gradient_energy(x: Tensor) -> float:
    return float(x.diff(dim=2).double().square().sum() + x.diff(dim=3).double().square().sum())
