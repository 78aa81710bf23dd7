"""What every DP-SGD engine promises (Abadi et al. 2016, Algorithm 1, line "clip"), and the arithmetic they share.

`clipped_sum(records, C, weights)` takes records [N * m, ...], patient-major: m rows for each of N patients, and weights
[N, m] (None: m = 1 and all ones). A patient's loss is sum_j weights[i, j] * loss(row j); its gradient over ALL
parameters is clipped once, to C, whatever the number of its images, and the clipped gradients are added up. A patient
whose norm is not finite counts as zero: one broken image must neither poison the sum nor pass the clip. A patient whose
weights are all zero is padding: it costs the same work and counts as zero. No patients give zeros. Sums are float64.
The loss must not couple records: it maps a forward function and rows [R, ...] to [R] values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from sfumato_common.errors import ConfigError, EgressRefused
from sfumato_common.memory import budget
from sfumato_common.rows import row_bytes

RecordLoss = Callable[..., Tensor]
# Rows that an engine holds at a time, at most: enough to fill the cores, few enough to stay near the caches. Memory may
# allow fewer.
CHUNK_ROWS = 64
# Patients whose clipped gradients are added up in float32, at most. Such blocks are added up in float64, so that
# roundings do not grow with the number of places: `mechanisms.recorder.FLOAT32_SLACK` says what they amount to.
BLOCK = 64


class Engine(Protocol):
    """Clipped sums of per-patient gradients of one module under one loss. Raises ConfigError for what it cannot do."""

    def __init__(self, module: nn.Module, loss: RecordLoss) -> None: ...

    def clipped_sum(
        self, records: Sequence[Tensor], clipping_norm: float, weights: Tensor | None = None
    ) -> list[Tensor]:
        """Sum over patients of clipped gradients, one float64 tensor a parameter; see the module's contract."""
        ...


def patient_weights(records: Sequence[Tensor], weights: Tensor | None) -> Tensor:
    """Weights [N, m] float32 beside the records; None means one row of weight one a patient."""
    rows = len(records[0])
    if weights is None:
        return torch.ones(rows, 1, device=records[0].device)
    assert weights.ndim == 2 and weights.numel() == rows, "weights must be [N, m] for records [N * m, ...]"
    return weights.float()


class RowsByMemory:
    """How many rows of a module's loss memory allows at a time: forward and backward pass, and a gradient each.

    Asked once for each form of records and held to from then on, so that all chunks of a training have one shape.
    """

    def __init__(self, module: nn.Module, loss: RecordLoss) -> None:
        self._module, self._loss = module, loss
        self._found: dict[tuple[torch.Size, ...], int] = {}

    def __call__(self, records: Sequence[Tensor], most: int) -> int:
        """For records [R, ...], part by part: from 1 to `most`."""
        if not len(records[0]):
            return 1
        form = tuple(part.shape[1:] for part in records)
        if form not in self._found:
            passes = 2 * row_bytes(lambda *rows: self._loss(self._module, *rows), *records)
            own = sum(parameter.nbytes for parameter in self._module.parameters())
            self._found[form] = max(1, budget() // (passes + own))
        return min(most, self._found[form])


def patients_at_once(patients: int, views: int, rows: int) -> int:
    """How many patients of `views` rows make a chunk of at most `rows`; padded batches divide evenly.

    Every chunk of a padded batch has one public shape, so that a patient's gradient is the same to the last bit
    wherever the patient stands and whoever else came: crafted weights could blow up a last bit beyond any clip.
    """
    most = max(1, rows // views)
    if patients <= most:
        return max(1, patients)
    even = max(size for size in range(1, most + 1) if patients % size == 0)
    # few divisors, so nobody padded this batch: the last chunk is then shorter
    return even if 4 * even > most else most


def chunks(records: Sequence[Tensor], weights: Tensor, size: int) -> Iterable[tuple[list[Tensor], Tensor]]:
    """Records and weights [n, m] of at most `size` patients at a time."""
    views = weights.shape[1]
    for start in range(0, len(weights), size):
        stop = start + size
        yield [part[start * views : stop * views] for part in records], weights[start:stop]


def by_patient(rows: Tensor, patients: int) -> Tensor:
    """[n * m, ...] -> [n, ...]: views added up; their weights are in the gradient already."""
    return rows if len(rows) == patients else rows.reshape(patients, -1, *rows.shape[1:]).sum(dim=1)


def clip_factors(squared: Tensor, clipping_norm: float) -> Tensor:
    """min(1, C / norm) [N] float32 from squared norms [N] float64; zero where the norm is not finite."""
    factors = torch.clamp(clipping_norm / squared.sqrt().clamp(min=1e-12), max=1.0)
    return torch.where(torch.isfinite(squared), factors, 0.0).float()


def squared_norms(gradients: Tensor) -> Tensor:
    """Squared norms [N] float64 of gradients [N, ...]: float32 within a row of the weight, float64 over rows.

    A float32 norm over millions of entries is off by 5e-5, five times what a clip may be off.
    """
    rows = gradients.flatten(2) if gradients.ndim > 2 else gradients.reshape(len(gradients), 1, -1)
    norms: Tensor = torch.linalg.vector_norm(rows, dim=2)
    return norms.double().square().sum(dim=1)


def weighted_sum(gradients: Tensor, factors: Tensor) -> Tensor:
    """Sum over at most BLOCK patients of factors [N] times gradients [N, ...], without rows whose factor is zero."""
    if len(factors) > BLOCK:
        raise EgressRefused("more patients at once than a float32 sum may hold: their roundings would pass the slack")
    kept = factors > 0
    if not kept.all():
        # selected, not multiplied by zero: 0 x inf would be nan
        gradients, factors = gradients[kept], factors[kept]
    total: Tensor = torch.tensordot(factors, gradients, dims=1)
    return total


def double_zeros(parameters: Iterable[Tensor]) -> list[Tensor]:
    """What blocks are added to: float64 zeros, one tensor a parameter."""
    return [torch.zeros_like(parameter, dtype=torch.float64) for parameter in parameters]


def add_clipped(totals: Sequence[Tensor], gradients: Sequence[Tensor], clipping_norm: float) -> None:
    """Add the clipped sums of whole per-patient gradients, each [N, ...], to float64 `totals`."""
    squared = torch.stack([squared_norms(gradient) for gradient in gradients]).sum(dim=0)
    factors = clip_factors(squared, clipping_norm)
    for total, gradient in zip(totals, gradients, strict=True):
        for part, own in zip(torch.split(gradient, BLOCK), torch.split(factors, BLOCK), strict=True):
            total += weighted_sum(part, own)


def owners_of_parameters(module: nn.Module, known: tuple[type[nn.Module], ...], engine: str) -> dict[str, nn.Module]:
    """Layers that own parameters, by name, when each is of a `known` type and shares nothing with another.

    Engines that see layers instead of the loss are exact for no other module: a parameter that a module reads itself, a
    flow's log-determinant for one, would be dropped silently. Raises ConfigError with the reason and the layer's name.
    """
    owners = {
        name: part
        for name, part in module.named_modules(remove_duplicate=False)
        if next(part.parameters(recurse=False), None) is not None
    }
    seen: set[int] = set()
    for name, owner in owners.items():
        if type(owner) not in known:
            raise ConfigError(
                f"engine '{engine}' does not know the gradient of '{name or 'the model'}' ({type(owner).__name__} owns "
                "parameters itself); use the engine 'vmap'"
            )
        own = {id(parameter) for parameter in owner.parameters()}
        if own & seen:
            raise ConfigError(f"engine '{engine}' cannot follow the shared layer '{name}'; use the engine 'vmap'")
        seen |= own
    return owners
