"""Where tensors live: the accelerator when there is one, the CPU otherwise."""

from __future__ import annotations

import torch


def training_device() -> torch.device:
    """CUDA when torch finds one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
