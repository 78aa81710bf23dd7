"""A codec trained on public images and scored on patients that it did not see: what `config.json` then says of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sfumato_common.codec.folder import weights_of
from sfumato_common.codec.form import CodecConfig, CodecForm, LossWeights, Report, Score
from sfumato_common.codec.network import Codec
from sfumato_common.codec.public_images import PublicImages
from sfumato_common.codec.training import Budget, Step, best_device, train_codec
from sfumato_common.memory import by_chunks
from sfumato_common.metrics.reconstruction import reconstruction_scores
from sfumato_common.types import ByteImages, fingerprint, to_bytes, to_unit_range
from sfumato_server.pictures import mosaic, png


def pretrain_codec(
    form: CodecForm,
    losses: LossWeights,
    public: PublicImages,
    budget: Budget,
    seed: int,
    licence: str,
    tell: Callable[[Step], None] = lambda step: None,
) -> tuple[Codec, CodecConfig, ByteImages]:
    """The codec, its configuration, and the images that were kept apart. Raises DataError."""
    shown, held = public.halves(seed)
    device = best_device()
    codec, steps, seconds = train_codec(form, losses, _bytes(shown), budget, seed, tell, device)
    codec.eval().requires_grad_(False)
    report = Report(
        steps=steps,
        seconds=round(seconds, 1),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        held_out_images=len(held),
        codec=score(held, reconstruct(codec, held)),
        cosines=score(held, reconstruct(codec, held, plain=True)),
    )
    sha256 = fingerprint(weights_of(codec))
    return (
        codec,
        CodecConfig(
            form=form, losses=losses, sources=public.sources, licence=licence, report=report, weights_sha256=sha256
        ),
        held,
    )


def reconstruct(codec: Codec, images: ByteImages, *, plain: bool = False) -> Tensor:
    """Reconstructions [N, C, S, S] of integer images [N, S, S(, 3)]; `plain` has as many unbent cosines instead."""

    def both_ways(rows: Tensor) -> Tensor:
        rows = rows.to(codec.device)
        if plain:
            return codec.plain(codec.coefficients(rows).flatten(1)).cpu()
        return codec.decode(codec.encode(rows)).cpu()

    return by_chunks(both_ways, torch.from_numpy(to_unit_range(images)))


def sheet(codec: Codec, images: ByteImages) -> bytes:
    """PNG: images, as many plain cosines of each below, and below these the codec's, at their own size."""
    drawn = (to_bytes(reconstruct(codec, images, plain=plain).numpy()) for plain in (True, False))
    return png(mosaic([list(images), *map(list, drawn)], columns=len(images), least_width=0))


def score(images: ByteImages, made: Tensor) -> Score:
    """Scores as a configuration states them."""
    found = reconstruction_scores(images, made.numpy())
    return Score(psnr=round(found.psnr, 3), fine=round(found.fine, 4), energy=round(found.energy, 4))


def _bytes(images: ByteImages) -> Tensor:
    """uint8 [N, C, S, S]."""
    pixels = torch.from_numpy(images)
    return pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
