"""A given encoder, ready for use: the plan's file in the plan's architecture, strictly, with its preparation of images.

To add an architecture: its module, a line in each table of `settings.py`, and one in `_BUILDERS` here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato_common.encoders.efficientnet import EfficientNetLite0
from sfumato_common.encoders.files import find_encoder, read_weights
from sfumato_common.encoders.resnet import DEPTHS, ResNet
from sfumato_common.encoders.settings import EncoderTerms
from sfumato_common.encoders.vgg import Vgg19Conv1
from sfumato_common.encoders.vit import SIZES, VisionTransformer
from sfumato_common.errors import VerificationError

# Public, far beyond any published weight or variance: larger ones are there to overflow something.
_LARGEST_VALUE = 1e6
Builder = Callable[[str, Mapping[str, Tensor]], nn.Module]
_BUILDERS: dict[str, Builder] = {
    "efficientnet-lite0": lambda name, weights: EfficientNetLite0(),
    "vgg19-conv1": lambda name, weights: Vgg19Conv1(),
    **dict.fromkeys(DEPTHS, lambda name, weights: ResNet(name)),
    **dict.fromkeys(SIZES, VisionTransformer),
}
# names of what published files hold beside the encoder: classifiers, later layers, decoders of masked autoencoders
_BESIDE: dict[str, tuple[str, ...]] = {
    "efficientnet": ("_fc.",),
    "resnet": ("fc.",),
    "vgg19": ("features.", "classifier."),
    "vit": ("head.", "head_dist.", "mask_token", "decoder_"),
}


class Encoder(nn.Module):
    """Images [N, C, S, S] in [-1, 1] -> embeddings [N, D], or maps [N, D, S, S]; differentiable, its weights fixed.

    Every image is on its own, and nothing in it was made from a patient of the study: it costs no privacy.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, terms: EncoderTerms, network: nn.Module) -> None:
        super().__init__()
        self.length = terms.length
        self._size = None if terms.is_map else terms.size
        # channels beside each other: a CPU's depthwise convolutions then take a quarter to a half of the time less
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.register_buffer("mean", torch.tensor(terms.mean).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(terms.deviation).view(1, 3, 1, 1))
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings of images."""
        found: Tensor = self.network(self.prepare(images).contiguous(memory_format=torch.channels_last))
        return found

    def prepare(self, images: Tensor) -> Tensor:
        """Three channels [N, 3, S', S'] at the encoder's size, by its mean and deviation."""
        if self._size is not None and images.shape[-1] != self._size:
            images = functional.interpolate(
                images, (self._size, self._size), mode="bilinear", antialias=True, align_corners=False
            )
        return ((images.expand(-1, 3, -1, -1) + 1.0) / 2.0 - self.mean) / self.deviation


@dataclass(frozen=True)
class Encoders:
    """Encoders by name, `terms`, as a plan has them; their files stand in `folder`."""

    folder: Path
    terms: Mapping[str, EncoderTerms]

    def load(self, name: str) -> Encoder:
        """The encoder of that name, on the CPU. Raises VerificationError: see `find_encoder`, `read_encoder`."""
        terms = self.terms[name]
        return read_encoder(terms, find_encoder(self.folder, terms))

    def load_all(self, names: Iterable[str]) -> dict[str, Encoder]:
        """The encoders of those names. Raises what `load` raises."""
        return {name: self.load(name) for name in names}


def read_encoder(terms: EncoderTerms, data: bytes) -> Encoder:
    """The encoder of a file's bytes, whose hash was checked.

    Raises VerificationError for a file that cannot be read as data, and for weights that are missing, too many, of
    another shape, or of no possible value.
    """
    weights = {name: value for name, value in read_weights(data).items() if not name.endswith(".num_batches_tracked")}
    try:
        with torch.device("meta"):
            network = _BUILDERS[terms.architecture](terms.architecture, weights)
    except Exception:  # shapes that the architecture is read off may be anything
        raise VerificationError(_misfit(terms, "it lacks what its shape is read off")) from None
    wanted = network.state_dict()
    beside = next(names for kind, names in _BESIDE.items() if terms.architecture.startswith(kind))
    if missing := sorted(set(wanted) - set(weights)):
        raise VerificationError(_misfit(terms, f"{len(missing)} weights are missing, the first is '{missing[0]}'"))
    if unknown := [name for name in weights if name not in wanted and not name.startswith(beside)]:
        raise VerificationError(_misfit(terms, f"{len(unknown)} weights have no place in it"))
    if other := [name for name, value in wanted.items() if weights[name].shape != value.shape]:
        raise VerificationError(_misfit(terms, f"{len(other)} weights have another shape, the first is '{other[0]}'"))
    own = {name: weights[name].float().contiguous() for name in wanted if weights[name].is_floating_point()}
    if len(own) < len(wanted) or not all(bool((value.abs() <= _LARGEST_VALUE).all()) for value in own.values()):
        raise VerificationError(_misfit(terms, "it holds values that no training leads to"))
    network.load_state_dict(own, assign=True)
    encoder = Encoder(terms, network)
    if not _works(encoder, terms):
        raise VerificationError(_misfit(terms, f"it makes nothing of images of {terms.size} x {terms.size} pixels"))
    return encoder


def _works(encoder: Encoder, terms: EncoderTerms) -> bool:
    """Whether a black image has features of the right number, all finite."""
    try:
        with torch.no_grad():
            found = encoder(-torch.ones(1, 1, terms.size, terms.size))
    except RuntimeError:
        return False
    return found.shape[:2] == (1, terms.length) and bool(found.isfinite().all())


def _misfit(terms: EncoderTerms, why: str) -> str:
    return f"the encoder file '{terms.file}' is no '{terms.architecture}': {why}; name its architecture in the plan"
