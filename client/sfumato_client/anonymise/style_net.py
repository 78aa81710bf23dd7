"""Weights of k-SALSA's style net, given by the site: a safetensors file by parameter name.

Without them every release trains its own network on the cohort. They steer images and leave with nothing.
"""

from __future__ import annotations

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from sfumato_client.anonymise.self_supervised import ContrastiveNet
from sfumato_common.errors import VerificationError
from sfumato_common.generators.starts import LARGEST_VALUE
from sfumato_common.study.terms import ImageForm
from sfumato_common.types import AnyArray


def encode_style_net(net: ContrastiveNet) -> bytes:
    """The network's parameters as a safetensors file; what is measured on a cohort anew is left out."""
    return bytes(save({name: parameter.detach().cpu().contiguous() for name, parameter in net.named_parameters()}))


def read_style_net(data: bytes, form: ImageForm) -> dict[str, AnyArray]:
    """Parameters by name, float32, of a network for images of `form`.

    Raises VerificationError for a file that is none, has other weights than that network, or values no training leads
    to.
    """
    try:
        found = load(data)
    except (SafetensorError, ValueError, KeyError):
        raise VerificationError(
            "the style net is no safetensors file; give one that 'sfumato-site style-net fit' wrote"
        ) from None
    with torch.device("meta"):
        wanted = dict(ContrastiveNet(form.size, form.channels).named_parameters())
    if set(found) != set(wanted) or any(found[name].shape != value.shape for name, value in wanted.items()):
        raise VerificationError(
            f"the style net is not of a network for images of {form.size} x {form.size} pixels and {form.channels} "
            "channel(s); fit one for this plan, or drop it with 'sfumato-site style-net drop'"
        )
    for name, value in found.items():
        if not value.is_floating_point() or not bool((value.abs() <= LARGEST_VALUE).all()):
            raise VerificationError(f"the style net's '{name}' holds values that no training leads to")
    return {name: value.to(torch.float32).numpy() for name, value in found.items()}
