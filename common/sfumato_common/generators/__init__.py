"""The table of generators that sites train and release, one folder a generator; importing it loads no torch.

To add one: its folder, its two halves, and its record here, one line. All that is said of kinds elsewhere, from the
stages that a plan may have to the schemas of what travels and the help of commands, is read from this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfumato_common.generators.appearance import APPEARANCE
from sfumato_common.generators.base import Build, Generator
from sfumato_common.generators.codec import CODEC
from sfumato_common.generators.diffusion import DIFFUSION
from sfumato_common.generators.embedding import EMBEDDING
from sfumato_common.generators.flow import FLOW
from sfumato_common.generators.gan import GAN
from sfumato_common.generators.spectral import SPECTRAL
from sfumato_common.generators.stylegan2 import STYLEGAN2

GENERATORS: Mapping[str, Generator[Any]] = {
    record.kind: record
    for record in (
        SPECTRAL,
        EMBEDDING,
        GAN,
        FLOW,
        APPEARANCE,
        CODEC,
        STYLEGAN2,
        DIFFUSION,
    )
}


def _networks() -> dict[str, Build]:
    """Every network by name; generators that train the same one build it alike."""
    found: dict[str, Build] = {}
    for record in GENERATORS.values():
        for name, build in record.networks.items():
            assert found.setdefault(name, build) is build, f"two networks are called '{name}'"
    return found


NETWORKS: Mapping[str, Build] = _networks()
