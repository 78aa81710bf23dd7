"""A codec as a folder: `config.json` and `codec.safetensors`; the hash of its weights is what a plan pins.

The file holds half precision, to which a codec is rounded when its training is over: file and codec are the same.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from sfumato_common.codec.form import CodecConfig, CodecForm
from sfumato_common.codec.network import Codec
from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.files import write_atomic, write_json
from sfumato_common.strict import parse
from sfumato_common.types import AnyArray, Arrays, fingerprint

CONFIG, WEIGHTS = "config.json", "codec.safetensors"
PREFIX = "autoencoder"  # of the weights' names, as a stage's start has them
LARGEST_WEIGHT = 1e3  # far beyond any trained one


def weights_of(codec: Codec) -> dict[str, AnyArray]:
    """The weights by name, `autoencoder/<parameter>`, float32."""
    return {
        f"{PREFIX}/{name}": np.ascontiguousarray(value.detach().cpu().float())
        for name, value in codec.named_parameters()
    }


def build_codec(form: CodecForm, weights: Arrays) -> Codec:
    """The codec with these weights, on the CPU, frozen. Raises VerificationError where they are not of that form."""
    codec = Codec(form, torch.Generator().manual_seed(0))
    own = {f"{PREFIX}/{name}": value for name, value in codec.named_parameters()}
    if set(own) != set(weights) or any(weights[name].shape != tuple(value.shape) for name, value in own.items()):
        raise VerificationError("the codec's weights are not of the form that its config.json states")
    for value in weights.values():
        if value.dtype != np.float32 or not np.isfinite(value).all() or np.abs(value).max(initial=0) > LARGEST_WEIGHT:
            raise VerificationError("the codec's weights hold values that no training leads to")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(torch.from_numpy(np.array(weights[name])))
    return codec.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def write_codec(folder: Path, codec: Codec, config: CodecConfig) -> None:
    """Both files; the configuration last, so that a folder with one is whole."""
    half = {name: value.astype(np.float16) for name, value in weights_of(codec).items()}
    write_atomic(folder / WEIGHTS, save(half))
    write_json(folder / CONFIG, config.model_dump(mode="json"))


def read_codec(folder: Path, sha256: str | None = None) -> tuple[Codec, CodecConfig]:
    """The codec of a folder, on the CPU and frozen. Raises ConfigError, or VerificationError where a hash differs.

    Its weights must be those that its own `config.json` states, and those of `sha256` where a plan pins them.
    """
    try:
        text, data = (folder / CONFIG).read_text(encoding="utf-8"), (folder / WEIGHTS).read_bytes()
        stated = json.loads(text)
    except (OSError, ValueError):
        raise ConfigError(
            f"'{folder.name}' is no codec: it holds '{CONFIG}' and '{WEIGHTS}', as 'sfumato model pretrain codec' "
            "writes them"
        ) from None
    config = parse(stated, CodecConfig, CONFIG)
    try:
        weights = {name: value.astype(np.float32) for name, value in load(data).items()}
    except (SafetensorError, ValueError, KeyError):
        raise VerificationError(f"'{WEIGHTS}' is no safetensors file; bring the folder anew") from None
    found = fingerprint(weights)
    if found != config.weights_sha256:
        raise VerificationError(f"the weights are not those of '{CONFIG}'; bring both files of one codec")
    if sha256 is not None and found != sha256:
        raise VerificationError("the codec is not the one that the plan pins by its sha256")
    return build_codec(config.form, weights), config
