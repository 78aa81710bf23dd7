"""Where tensors live: the accelerator when there is one, the CPU otherwise."""

from __future__ import annotations

import torch


def training_device() -> torch.device:
    """CUDA when torch finds one, else the CPU.

    On CUDA torch would round the factors of float32 convolutions to 10 bits (TF32). An engine that computes a patient's
    norm by other products than the sum it clips is then off by about 1e-3, and a clip must not be: it is switched off.
    So are convolutions that add up in no fixed order, which would let one patient's company change another's last bits.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    return torch.device("cuda")
