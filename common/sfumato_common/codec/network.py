"""The codec's networks: cosines of low frequency, of which the finer ones are bent to carry what all of them leave.

A code is the image's lowest cosines (DCT-II, orthonormal) plus a learned term that leaves the `kept` lowest alone;
decoding is their inverse plus a learned image that has none of the `kept` lowest. So those pass exactly, and with both
terms at zero, as they start, a codec IS the DCT of as many numbers. Learned downscaling of images: Sun and Chen 2020
(CAR), Xiao et al. 2020 (IRN); residual blocks without normalisation: Lim et al. 2017 (EDSR). Nothing couples records.
Codes are in units of DCT coefficients of an image in [-1, 1].
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from scipy.fft import dct
from torch import Tensor, nn
from torch.nn import functional

from sfumato_common.codec.form import CodecForm

Places = npt.NDArray[np.int64]
_RESIDUAL = 0.3  # of a block's last layer at the start, over He's: deep stacks begin near the identity


def half_precision(device: torch.device, wanted: bool = True) -> torch.autocast:
    """Convolutions in bfloat16, on an accelerator only: in training, never for codes that are released."""
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and device.type == "cuda")


class Block(nn.Module):
    """x + conv(silu(conv(x))), [N, W, G, G]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        found: Tensor = x + self.second(functional.silu(self.first(x)))
        return found


class Trunk(nn.Module):
    """Maps [N, before, G, G] -> [N, after, G, G] by `blocks` residual blocks; its output is zero at the start."""

    def __init__(self, before: int, width: int, blocks: int, after: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(before, width, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.leave = nn.Conv2d(width, after, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """The maps."""
        with half_precision(x.device, self.training):
            entered = self.enter(x)
            found: Tensor = self.leave(entered + self.blocks(entered))
        return found.float()


class Codec(nn.Module):
    """Images [N, C, S, S] in [-1, 1] to codes [N, D] and back, D = C x cosines, in order of frequency."""

    def __init__(self, form: CodecForm, rng: torch.Generator) -> None:
        """Weights are drawn from `rng`, those of both last layers are zero."""
        super().__init__()
        self.form = form
        planes = form.channels * form.step**2
        self.encoder = Trunk(planes, form.width, form.encoder_blocks, planes)
        self.decoder = Trunk(planes, form.width, form.decoder_blocks, planes)
        for name, parameter in self.named_parameters():
            spread = (2.0 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.0
            nn.init.normal_(parameter, 0.0, spread * (_RESIDUAL if ".second." in name else 1.0), generator=rng)
        nn.init.zeros_(self.encoder.leave.weight)
        nn.init.zeros_(self.decoder.leave.weight)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.leave.weight.device

    @property
    def _basis(self) -> tuple[Tensor, Tensor]:
        return basis(self.form.size, self.form.cosines, self.device)

    def encode(self, images: Tensor) -> Tensor:
        """Codes [N, D] of images [N, C, S, S]."""
        codes, kept = self.coefficients(images), self.form.kept
        learned = self.coefficients(self._image(self.encoder, images))
        return torch.cat([codes[..., :kept], codes[..., kept:] + learned[..., kept:]], dim=2).flatten(1)

    def decode(self, codes: Tensor) -> Tensor:
        """Images [N, C, S, S] of codes [N, D]; differentiable. Not clipped to [-1, 1]."""
        plain = self.plain(codes)
        learned = self._image(self.decoder, plain)
        return plain + learned - self._synthesis(self.coefficients(learned)[..., : self.form.kept])

    def plain(self, codes: Tensor) -> Tensor:
        """Images [N, C, S, S] whose lowest cosines are the codes [N, D], and all others zero."""
        return self._synthesis(codes.reshape(len(codes), self.form.channels, self.form.cosines))

    def kept(self, images: Tensor) -> Tensor:
        """Images [N, C, S, S] with the kept cosines alone."""
        return self._synthesis(self.coefficients(images)[..., : self.form.kept])

    def coefficients(self, images: Tensor) -> Tensor:
        """The lowest cosines [N, C, K] of images [N, C, S, S]."""
        waves, places = self._basis
        return (waves @ images @ waves.T).flatten(2).index_select(2, places)

    def _synthesis(self, codes: Tensor) -> Tensor:
        """Images [N, C, S, S] of the lowest k <= K cosines [N, C, k]."""
        waves, places = self._basis
        count = len(waves)
        block = codes.new_zeros(*codes.shape[:2], count * count).index_copy(2, places[: codes.shape[2]], codes)
        made: Tensor = waves.T @ block.reshape(*codes.shape[:2], count, count) @ waves
        return made

    def _image(self, trunk: nn.Module, images: Tensor) -> Tensor:
        """What a network makes of the pixels of every place, as images."""
        seen = functional.pixel_unshuffle(images, self.form.step).contiguous(memory_format=torch.channels_last)
        return functional.pixel_shuffle(trunk(seen), self.form.step)


@lru_cache(maxsize=8)
def basis(size: int, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Waves [F, size] of the frequencies that the lowest cosines need, and those cosines' places [count] in F x F."""
    down, across = lowest(size, count)
    most = int(max(down.max(), across.max())) + 1
    waves = dct(np.eye(size), norm="ortho", axis=0)[:most]
    return torch.from_numpy(waves).float().to(device), torch.from_numpy(down * most + across).to(device)


def lowest(size: int, count: int) -> tuple[Places, Places]:
    """Frequencies down and across, [count] each, of the cosines of least radial frequency; ties in reading order."""
    down, across = (index.ravel() for index in np.indices((size, size)))
    order = np.argsort(down**2 + across**2, kind="stable")[:count]
    return down[order], across[order]
