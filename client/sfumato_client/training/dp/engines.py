"""The table of DP-SGD engines; every one keeps the contract of `contract.py` and equals `PatientLoop`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from sfumato_client.training.dp.bookkeeping import BookKeeping
from sfumato_client.training.dp.contract import Engine, RecordLoss
from sfumato_client.training.dp.hooks import OpacusExpandedWeights, OpacusHooks
from sfumato_client.training.dp.loop import PatientLoop
from sfumato_client.training.dp.shared import Ranks, SharedSums
from sfumato_client.training.dp.suitability import check_private, public_records
from sfumato_client.training.dp.vmap import CompiledVmap, WholeLossVmap
from sfumato_common.errors import ConfigError

ENGINES: dict[str, type[Engine]] = {
    "loop": PatientLoop,
    "opacus": OpacusHooks,
    "opacus-ew": OpacusExpandedWeights,
    "bookkeeping": BookKeeping,
    "vmap": WholeLossVmap,
    "vmap-compiled": CompiledVmap,
}
# These see layers instead of the loss, so that what they miss is a silent error: their sums are compared before use.
_SEE_LAYERS = ("opacus", "opacus-ew", "bookkeeping")
_PROBE_PATIENTS = 3


def private_engine(
    module: nn.Module, loss: RecordLoss, name: str, form: Sequence[Sequence[int]], ranks: Ranks | None = None
) -> Engine:
    """The engine `name` for this model, after all checks; "auto" is `automatic_engine`.

    `form` is the shape of one record, part by part. Raises ConfigError, with the reason, for a model or loss that
    cannot be trained privately, and for an engine that is not exact for it. With `ranks` its sums are made by all.
    """
    check_private(module, loss, form)
    if name == "auto":
        name = automatic_engine(module, next(module.parameters()).device)
    engine = ENGINES[name](module, loss)
    if name in _SEE_LAYERS:
        _compare(name, engine, PatientLoop(module, loss), module, form)
    if ranks is None:
        return engine
    ranks.begin(module, loss, name)
    return SharedSums(engine, module, ranks)


def automatic_engine(module: nn.Module, device: torch.device) -> str:
    """What "auto" stands for: on the CPU the engine that the model declares, on CUDA `vmap`.

    Book-keeping's products were chosen on a CPU: on an H200 they are up to 4 times slower than `vmap` (`make bench
    NAME=gpu`), which is as exact there.
    """
    return "vmap" if device.type == "cuda" else str(getattr(module, "private_engine", "vmap"))


def _compare(name: str, engine: Engine, oracle: Engine, module: nn.Module, form: Sequence[Sequence[int]]) -> None:
    device = next(module.parameters()).device
    records = [part.to(device) for part in public_records(form, _PROBE_PATIENTS)]
    expected = oracle.clipped_sum(records, 1e6)
    try:
        found = engine.clipped_sum(records, 1e6)
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        raise ConfigError(f"engine '{name}' cannot run this model ({type(error).__name__}); use 'vmap'") from error
    difference, size = (
        float(torch.stack([part.double().square().sum() for part in parts]).sum().sqrt())
        for parts in ([a - b for a, b in zip(found, expected, strict=True)], expected)
    )
    if not difference <= 1e-4 * max(1.0, size):
        raise ConfigError(f"engine '{name}' is not exact for this model; use the engine 'vmap'")
