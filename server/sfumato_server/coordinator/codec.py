"""A codec trained on public images and scored on patients that it did not see: what `config.json` then says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.fft import dctn, idctn
from torch import Tensor

from sfumato_common.codec.autoencoder_kl import WEIGHTS as PUBLISHED
from sfumato_common.codec.autoencoder_kl import read_autoencoder_kl
from sfumato_common.codec.folder import read_codec, weights_of
from sfumato_common.codec.form import CodecConfig, CodecForm, LossWeights, Report, Score
from sfumato_common.codec.network import Codec, lowest
from sfumato_common.codec.public_images import PublicImages
from sfumato_common.codec.training import Budget, Step, best_device, train_codec
from sfumato_common.errors import ConfigError
from sfumato_common.metrics.reconstruction import reconstruction_scores
from sfumato_common.pictures import mosaic, png
from sfumato_common.rows import by_chunks
from sfumato_common.types import ByteImages, fingerprint, to_bytes, to_unit_range


def pretrain_codec(
    form: CodecForm,
    losses: LossWeights,
    public: PublicImages,
    budget: Budget,
    seed: int,
    licence: str,
    tell: Callable[[Step], None] = lambda step: None,
    start: tuple[Codec, CodecConfig] | None = None,
) -> tuple[Codec, CodecConfig, ByteImages]:
    """The codec, its configuration, and the images that were kept apart. Raises DataError.

    From a `start` it goes on, and keeps what that one was made of among its sources and licences: unless these and the
    seed are the same, images that are kept apart now may have been learned from before.
    """
    shown, held = public.halves(seed)
    device = best_device()
    first, before = start or (None, None)
    codec, steps, seconds = train_codec(form, losses, _bytes(shown), budget, seed, tell, device, first)
    sources, licences = list(public.sources), [licence]
    if before is not None:
        sources = [*before.sources, *(source for source in sources if source not in before.sources)]
        licences = [before.licence, *(text for text in licences if text != before.licence)]
    report = Report(
        steps=steps,
        seconds=round(seconds, 1),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        held_out_images=len(held),
        codec=score(held, reconstruct(codec, held)),
        cosines=score(held, cosines(held, form.numbers)),
    )
    config = CodecConfig(
        form=form,
        losses=losses,
        sources=sources,
        licence="; ".join(licences),
        report=report,
        weights_sha256=fingerprint(weights_of(codec)),
    )
    return codec, config, held


@dataclass(frozen=True, eq=False)
class Coder:
    """Any public code: how many numbers an image of so many pixels and channels has, and images there and back."""

    numbers: int
    size: int
    channels: int
    reconstruct: Callable[[ByteImages], Tensor]


def read_coder(folder: Path, sha256: str | None, size: int, channels: int) -> Coder:
    """A codec's folder, or a published AutoencoderKL's for images of `size` and `channels`.

    `sha256` is a codec's as a plan pins it, or of the published safetensors file. Raises ConfigError and
    VerificationError.
    """
    if (folder / PUBLISHED).exists():
        network = read_autoencoder_kl(folder, sha256).to(best_device())
        if size % network.config.shrinks:
            raise ConfigError(f"--size must be a multiple of {network.config.shrinks} for this autoencoder")

        def both_ways(rows: Tensor) -> Tensor:
            return network.decode(network.encode(rows.to(network.device)), channels).cpu()

        return Coder(network.numbers(size), size, channels, lambda images: _by_chunks(both_ways, images))
    codec, config = read_codec(folder, sha256)
    form, codec = config.form, codec.to(best_device())
    return Coder(form.numbers, form.size, form.channels, lambda images: reconstruct(codec, images))


def reconstruct(codec: Codec, images: ByteImages) -> Tensor:
    """Reconstructions [N, C, S, S] of integer images [N, S, S(, 3)]."""
    return _by_chunks(lambda rows: codec.decode(codec.encode(rows.to(codec.device))).cpu(), images)


def cosines(images: ByteImages, numbers: int) -> Tensor:
    """Images [N, C, S, S] of their `numbers` cosines of least frequency, each channel's as many; nothing is learned."""
    pixels = to_unit_range(images)
    channels, size = pixels.shape[1:3]
    down, across = lowest(size, numbers // channels)
    mask = np.zeros((size, size), dtype=np.float32)
    mask[down, across] = 1.0
    return torch.from_numpy(idctn(dctn(pixels, axes=(2, 3), norm="ortho") * mask, axes=(2, 3), norm="ortho"))


def _by_chunks(function: Callable[[Tensor], Tensor], images: ByteImages) -> Tensor:
    return by_chunks(function, torch.from_numpy(to_unit_range(images)))


def sheet(images: ByteImages, *made: Tensor) -> bytes:
    """PNG: images, and below each what was made of it, at their own size."""
    rows = [list(images), *(list(to_bytes(part.numpy())) for part in made)]
    return png(mosaic(rows, columns=len(images), least_width=0))


def score(images: ByteImages, made: Tensor) -> Score:
    """Scores as a configuration states them."""
    found = reconstruction_scores(images, made.numpy())
    return Score(psnr=round(found.psnr, 3), fine=round(found.fine, 4), energy=round(found.energy, 4))


def _bytes(images: ByteImages) -> Tensor:
    """uint8 [N, C, S, S]."""
    pixels = torch.from_numpy(images)
    return pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
