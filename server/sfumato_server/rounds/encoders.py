"""The coordinator's files of given encoders: kept under the plan's names, checked whenever they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sfumato_common.encoders.encoder import Encoder, read_encoder
from sfumato_common.encoders.files import find_encoder
from sfumato_common.encoders.settings import names_of
from sfumato_common.errors import ConfigError
from sfumato_common.files import write_atomic
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays


def encoder_key(name: str) -> str:
    """Under which name a strategy finds the file of a given encoder among what it is given."""
    return f"encoder:{name}"


def keep_encoder(folder: Path, plan: Plan, data: bytes) -> str:
    """Keep an encoder's file in `folder`; returns the encoder's name. Raises ConfigError when the plan names none such.

    Raises VerificationError where it is the plan's, and not of the plan's architecture.
    """
    digest = hashlib.sha256(data).hexdigest()
    for name, terms in plan.encoders.items():
        if terms.sha256 == digest:
            read_encoder(terms, data)
            write_atomic(folder / terms.file, data)
            return name
    raise ConfigError("no encoder of the plan has this file's sha256; put it under 'encoders' in the plan first")


def load_encoders(folder: Path, plan: Plan) -> dict[str, dict[str, AnyArray]]:
    """Files of the encoders that stages name, by `encoder_key(name)`, for their strategies: bytes as `file` [B].

    Methods work at sites alone, and need none here. Raises VerificationError when one is missing or another.
    """
    found = {name: find_encoder(folder, plan.encoders[name]) for name in names_of(plan.stages)}
    return {encoder_key(name): {"file": np.frombuffer(data, np.uint8)} for name, data in found.items()}


def encoder_in(plan: Plan, name: str, given: Mapping[str, Arrays]) -> Encoder:
    """The encoder of that name from what `load_encoders` gave. Raises VerificationError: see `read_encoder`."""
    return read_encoder(plan.encoders[name], given[encoder_key(name)]["file"].tobytes())
