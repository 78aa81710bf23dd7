"""What no engine may be asked: modules and losses in which one patient's gradient depends on another's record.

Per-patient clipping bounds what one patient contributes only when nothing couples records (Abadi et al. 2016 need a
sum over records; Opacus's module validator keeps a list of layers for the same reason). Structure is checked by name,
and what no list of names can show is probed on public input with public weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sfumato_client.training.dp.contract import RecordLoss
from sfumato_common.errors import ConfigError

_BATCH_COUPLED = (
    nn.modules.batchnorm._BatchNorm,  # with SyncBatchNorm and the lazy ones
    nn.LocalResponseNorm,
)
_PROBE_RECORDS = 4


def check_private(module: nn.Module, loss: RecordLoss, form: Sequence[Sequence[int]]) -> None:
    """Raise ConfigError, with the reason and the layer's name, unless `loss` on `module` keeps records apart.

    `form` is the shape of one record, part by part, without the leading axis; no real record is looked at.
    """
    for name, layer in module.named_modules():
        if reason := _unfit(layer):
            raise ConfigError(f"'{name or 'the model'}' ({type(layer).__name__}) cannot be trained privately: {reason}")
    _probe(module, loss, form)


def _unfit(layer: nn.Module) -> str | None:
    if isinstance(layer, _BATCH_COUPLED):
        return "it couples the records of a batch; use GroupNorm"
    if getattr(layer, "track_running_stats", False):
        return "its running statistics are computed from patients without noise; set track_running_stats=False"
    if parametrize.is_parametrized(layer) or layer._forward_pre_hooks or layer._forward_hooks:
        return "weight or spectral normalisation and other hooks change weights inside a forward pass"
    if next(layer.named_buffers(recurse=False), None) is not None:
        return "it has a buffer, which would leave without noise"
    if getattr(layer, "padding_mode", "zeros") != "zeros":
        return "padding other than zeros gives wrong per-record gradients under hooks"
    if isinstance(layer, nn.modules.dropout._DropoutNd | nn.RReLU):
        return "it is random in training, so a patient's gradient is not a function of the patient"
    return None


def _probe(module: nn.Module, loss: RecordLoss, form: Sequence[Sequence[int]]) -> None:
    twin = copy.deepcopy(module).cpu().train()
    with torch.no_grad():
        for parameter in twin.parameters():
            # what starts at zero must not hide a coupling behind it; hostile weights must not hide one either
            scale = 0.5 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
            parameter.copy_(scale * _public_values(tuple(parameter.shape)))
        records = public_records(form, _PROBE_RECORDS)
        with torch.random.fork_rng(devices=[]):
            together = loss(twin, *records)
            again = loss(twin, *records)
            alone = [loss(twin, *(part[i : i + 1] for part in records)) for i in range(_PROBE_RECORDS)]
    if together.shape != (_PROBE_RECORDS,) or any(value.shape != (1,) for value in alone):
        raise ConfigError("the loss must give one value a record; a mean or a sum couples the records of a batch")
    if not _agree(together, again):
        raise ConfigError("the model is random in training: a patient's gradient is not a function of the patient")
    if not _agree(together, torch.cat(alone)):
        raise ConfigError("a record's loss depends on the rest of its batch; this model cannot be trained privately")


def public_records(form: Sequence[Sequence[int]], count: int) -> list[Tensor]:
    """`count` records of that form, the same everywhere: a probe needs no randomness and no patient."""
    return [_public_values((count, *part)) for part in form]


def _public_values(shape: tuple[int, ...]) -> Tensor:
    """A chirp of unit variance, without structure that a layer could have too."""
    index = torch.arange(math.prod(shape), dtype=torch.float64)
    return (math.sqrt(2.0) * torch.sin(0.618 * index.square() + 0.1 * len(shape))).float().reshape(shape)


def _agree(one: Tensor, two: Tensor) -> bool:
    return torch.allclose(one, two, rtol=1e-4, atol=1e-5, equal_nan=False)
