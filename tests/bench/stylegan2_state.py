"""A StyleGAN2's training as it stands, so that hours of two cores may be had in parts (`stylegan2.py --resume`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

STATE = "state.pt"
EVERY = 600.0  # seconds of training between two states that are kept
_OPTIMISERS, _NETWORKS = ("_slow", "_fast"), ("generator", "discriminator", "average")


def keep_state(bench: Any, spent: float) -> None:
    """Write all that the next step depends on, and the log."""
    training = bench.training
    names = (*_OPTIMISERS, *_NETWORKS)
    state: dict[str, Any] = {name: getattr(training, name).state_dict() for name in names}
    state |= {"p": training.adaptation.probability, "images": training.images, "steps": training._steps}
    state |= {"rows": bench.rows.get_state(), "draws": bench.draws._generator.get_state()}
    state |= {"spent": spent, "log": bench.log}
    part: Path = bench.out / f"{STATE}.part"
    torch.save(state, part)
    part.replace(bench.out / STATE)


def resume(bench: Any) -> float:
    """Put a training back to what was kept; how long it had been trained."""
    path: Path = bench.out / STATE
    state, training = torch.load(path, weights_only=True, map_location=bench.device), bench.training
    for name in (*_OPTIMISERS, *_NETWORKS):
        getattr(training, name).load_state_dict(state[name])
    training.adaptation.probability = state["p"]
    training.images, training._steps = state["images"], state["steps"]
    bench.rows.set_state(state["rows"].cpu())
    bench.draws._generator.set_state(state["draws"].cpu())
    bench.log = state["log"]
    return float(state["spent"])
