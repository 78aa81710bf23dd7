"""Codes of a released codec: the prior by class and site, images of codes, and codes of images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sfumato_common.codec.network import Codec
from sfumato_common.generators.codec.layout import CodecLayout
from sfumato_common.generators.codec.schemas import AUTOENCODER, build_autoencoder
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.spectral.moment_layout import Float64
from sfumato_common.generators.weights import load_network
from sfumato_common.mechanisms.draws import Draws
from sfumato_common.memory import by_chunks
from sfumato_common.types import AnyArray, Arrays, ByteImages, to_unit_range


class CodecSpace:
    """Class-conditional Gaussian over features, which are codes over public scales, and the network that draws them."""

    def __init__(self, codec: Codec, scale: Float64, arrays: Arrays) -> None:
        """`arrays` holds the released mean and factor of each component."""
        self._codec, self._scale = codec, _float(scale)
        self._mean, self._factor = (_float(arrays[f"codec/{name}"]) for name in ("mean", "factor"))

    def sample(self, y: Tensor, draws: Draws) -> Tensor:
        """Images [N, C, S, S] in [-1, 1] for components [N]."""
        normal = draws.normal((len(y), self._mean.shape[1]))
        return by_chunks(self._images, y, normal)

    def _images(self, y: Tensor, normal: Tensor) -> Tensor:
        features = self._mean[y] + torch.stack([self._factor[k] @ z for k, z in zip(y.tolist(), normal, strict=True)])
        return self._codec.decode(features * self._scale).clamp(-1.0, 1.0)


def codec_space(plan: PublicPlan, arrays: Arrays) -> CodecSpace:
    """The space of a plan's released codec. Raises VerificationError where the weights do not fit the plan."""
    return CodecSpace(released_codec(plan, arrays), CodecLayout.of(plan).scale, arrays)


def released_codec(plan: PublicPlan, arrays: Arrays) -> Codec:
    """The frozen network in `arrays`, on the CPU. Raises VerificationError where the weights do not fit the plan."""
    return load_network(AUTOENCODER, build_autoencoder, plan, arrays).eval().requires_grad_(False)


def features_of(layout: CodecLayout, codec: Codec, images: ByteImages) -> Float64:
    """Features [M, d], not clipped, of images [M, S, S(, 3)].

    Each row depends on its own image alone, to the last bit; one that is not finite counts as zero.
    """
    if not len(images):
        return np.zeros((0, layout.features))
    codes = by_chunks(codec.encode, torch.from_numpy(to_unit_range(images)))
    features = codes.double().numpy() / layout.scale
    return np.where(np.isfinite(features).all(axis=1, keepdims=True), features, 0.0)


def _float(array: AnyArray) -> Tensor:
    return torch.from_numpy(np.asarray(array, dtype=np.float32))
