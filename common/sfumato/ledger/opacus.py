"""An Opacus training loop under the ledger: no step without a charge, and noise and batches from ChaCha20 (RFC 8439).

    engine = PrivacyEngine()
    model, optimizer, loader = engine.make_private(module=net, optimizer=sgd, data_loader=loader, ...)
    optimizer, loader = charged_training(run, optimizer, loader, records=names, nominal_patients=2000, ...)
    for x, y in loader:     # each step is charged before its records are read
        ...                 # as with Opacus

Opacus computes the gradients of single records. What decides about privacy is done here: who is in a batch, the clipped
sum (in float64), its noise on a grid, and the count. Opacus takes its sampling rate and its denominator from the number
of records, which is secret under add/remove adjacency; here both are public numbers that the caller gives.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from opacus import PrivacyEngine
from opacus.optimizers import DPOptimizer
from opacus.optimizers.optimizer import _check_processed_flag, _mark_as_processed
from torch.utils.data import DataLoader, Sampler

from sfumato.ledger import Tool
from sfumato_client.ledger.charged import Charge, StatedCharge
from sfumato_client.ledger.runs import Run
from sfumato_common.accounting.events import SampledGaussian
from sfumato_common.errors import ConfigError, DataError, EgressRefused, PolicyRefusal
from sfumato_common.mechanisms.streams import SecretStream

TOOL = Tool(
    "sfumato.ledger.opacus on opacus 1.6",
    "recorded",
    (
        "Poisson sampling: the loader that charged_training gave was the only way to the records, in this process.",
        "A record's gradient, as Opacus computes it, depends on no other record: no batch normalisation, no shared "
        "state of the model that records change.",
        "The identifiers of the records are right: no patient has two of them under two identifiers.",
        "Sampling rate, number of steps, clipping norm and network were not chosen by looking at these patients.",
        "Nothing of the training left but the model's parameters: no loss, no batch size, no log.",
    ),
)

OWN_NOISE = Tool(
    "opacus 1.6 with its own noise",
    "stated",
    (
        "Opacus ran as its documentation says: gradients of single records, clipping, Poisson sampling, noise of the "
        "stated multiplier, by torchcsprng's generator where the statement says secure.",
        "Opacus's sampling rate and denominator, which it takes from the number of records, are public.",
        *TOOL.rests_on[1:],
    ),
)


def charged_training(
    run: Run,
    optimizer: DPOptimizer,
    loader: DataLoader[Any],
    *,
    records: Sequence[str],
    nominal_patients: int,
    sampling_rate: float,
    steps: int,
    block: int | None = None,
) -> tuple[ChargedOptimizer, DataLoader[Any]]:
    """Opacus's optimizer and loader with a ledger behind them; use both in the places of those two.

    `records` names the patient of every record of the loader's data set, one record a patient: Opacus samples records,
    and the unit is the patient. A step takes each patient with `sampling_rate`; gradients are divided by sampling_rate
    x nominal_patients. All of `steps` must fit the budget before the first one. They are charged in blocks of `block`
    (an epoch, 1 / sampling_rate, if not given); what is left of a begun block stays charged.
    Raises PolicyRefusal for another run's statement or an optimizer of another kind, DataError for a patient with
    several records, ConfigError for numbers that mean nothing; BudgetExceeded when the loader is first read.
    """
    if run.statement.tool != TOOL.name:
        raise PolicyRefusal("open the run with tool=sfumato.ledger.opacus.TOOL: its certificate says what it rests on")
    if type(optimizer) is not DPOptimizer:
        raise PolicyRefusal(
            f"the optimizer is a {type(optimizer).__name__}; only Opacus's DPOptimizer (flat clipping, one process, no "
            "ghost clipping) is known here, and others are refused"
        )
    _check_records(records, loader)
    epoch = round(1 / sampling_rate) if 0 < sampling_rate < 1 else 0
    if not epoch or nominal_patients < 1 or steps < 1 or (block is not None and block < 1):
        raise ConfigError("sampling_rate lies between 0 and 1; nominal_patients, steps and block are 1 or more")
    spend = _Spend(run, optimizer, sampling_rate, steps, block or epoch)
    charged = ChargedOptimizer(optimizer, spend, sampling_rate * nominal_patients)
    sampler = ChargedSampler(spend, len(records), sampling_rate, epoch)
    kept = ("num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn", "multiprocessing_context")
    return charged, DataLoader(loader.dataset, batch_sampler=sampler, **{name: getattr(loader, name) for name in kept})


@dataclass
class _Block:
    """Steps under one open charge, of which `left` are still to be made."""

    charge: Charge
    ends: contextlib.ExitStack
    left: int


class _Spend:
    """Steps as they are drawn, which a loader's workers do ahead, and as they are made."""

    def __init__(self, run: Run, optimizer: DPOptimizer, rate: float, steps: int, block: int) -> None:
        self._run, self.rate, self._steps, self._block = run, rate, steps, block
        self.noise_multiplier, self.clipping_norm = float(optimizer.noise_multiplier), float(optimizer.max_grad_norm)
        self.secret = SecretStream(run.noise)
        self._blocks: deque[_Block] = deque()
        self._drawn = self._made = self._paid = 0

    def pay(self) -> None:
        """Charge the step that is about to be drawn, with its block, unless it is paid for."""
        if self._drawn == self._steps:
            raise EgressRefused(f"all {self._steps} steps of this run were drawn; charge for more as another run")
        if self._drawn == self._paid:
            count, ends = min(self._block, self._steps - self._drawn), contextlib.ExitStack()
            ahead = [self._event(self._steps)]
            charge = ends.enter_context(self._run.charged([self._event(count)], ahead=ahead))
            self._blocks.append(_Block(charge, ends, count))
            self._paid += count
        self._drawn += 1

    def noised(self, total: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The clipped sum [d] of one step with its noise, counted. Raises EgressRefused for a step nobody paid for."""
        if self._made == self._drawn:
            raise EgressRefused("a step without a charge: read batches from the loader that charged_training gave")
        self._made += 1
        self._blocks[0].left -= 1
        value = total.cpu().numpy()
        recorder = self._blocks[0].charge.recorder
        return recorder.sampled_gaussian(value, self.clipping_norm, self.noise_multiplier, self.rate)

    def stepped(self, parameters: Sequence[torch.Tensor]) -> None:
        """Settle a block after its last step, with what the model has become."""
        if self._blocks and not self._blocks[0].left:
            block = self._blocks.popleft()
            block.charge.seal({str(at): one.detach().cpu().numpy() for at, one in enumerate(parameters)})
            block.ends.close()

    def _event(self, steps: int) -> SampledGaussian:
        return SampledGaussian(self.noise_multiplier, self.rate, steps)


class ChargedSampler(Sampler[list[int]]):
    """Batches of a Poisson sample each, 1 / rate of them an epoch; a batch's step is charged before it is drawn."""

    def __init__(self, spend: _Spend, records: int, rate: float, epoch: int) -> None:
        self._spend, self._records, self._rate, self._epoch = spend, records, rate, epoch

    def __len__(self) -> int:
        return self._epoch

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(self._epoch):
            self._spend.pay()
            yield self._spend.secret.poisson_sample(self._records, self._rate).tolist()


class ChargedOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus's optimizer whose clipped sum is in float64 and whose noise the ledger's recorder draws."""

    def __init__(self, optimizer: DPOptimizer, spend: _Spend, denominator: float) -> None:
        super().__init__(
            optimizer.original_optimizer,
            noise_multiplier=optimizer.noise_multiplier,
            max_grad_norm=optimizer.max_grad_norm,
            expected_batch_size=denominator,
            loss_reduction=optimizer.loss_reduction,
        )
        self._spend = spend

    def clip_and_accumulate(self) -> None:
        """Add up the records' gradients, each clipped over all parameters; one that is no number counts as zero."""
        if self.accumulated_iterations != 1:
            raise EgressRefused("gradients of two batches were accumulated; step after every batch")
        rows = [sample.detach().flatten(1).to(torch.float64) for sample in self.grad_samples]
        norms = torch.stack([row.norm(dim=1) for row in rows]).norm(dim=0)
        scale = torch.where(norms.isfinite(), (self._spend.clipping_norm / norms.clamp(min=1e-12)).clamp(max=1.0), 0.0)
        for parameter, row in zip(self.params, rows, strict=True):
            _check_processed_flag(parameter.grad_sample)
            # what is no number is scaled by zero, and would be none still
            total = scale @ torch.nan_to_num_(row, nan=0.0, posinf=0.0, neginf=0.0)
            before = parameter.summed_grad
            parameter.summed_grad = total if before is None else before + total
            _mark_as_processed(parameter.grad_sample)

    def add_noise(self) -> None:
        """Noise on the whole sum at once, from the recorder, for one step that was paid for."""
        if (self.noise_multiplier, self.max_grad_norm) != (self._spend.noise_multiplier, self._spend.clipping_norm):
            raise EgressRefused("noise multiplier or clipping norm changed since the charge; nothing was stepped")
        for parameter in self.params:
            _check_processed_flag(parameter.summed_grad)
        noised = self._spend.noised(torch.cat([parameter.summed_grad for parameter in self.params]))
        begin = 0
        for parameter in self.params:
            end = begin + parameter.numel()
            values = torch.from_numpy(noised[begin:end]).to(parameter.device, parameter.dtype)
            parameter.grad = values.view_as(parameter)
            _mark_as_processed(parameter.summed_grad)
            begin = end

    def step(self, closure: Any = None) -> Any:
        """As Opacus's; the last step of a block settles its charge."""
        done = super().step(closure)
        if not self._is_last_step_skipped:
            self._spend.stepped(self.params)
        return done


def _check_records(records: Sequence[str], loader: DataLoader[Any]) -> None:
    if len(records) != len(loader.dataset):  # type: ignore[arg-type]
        raise DataError("'records' names a patient for every record of the data set, in its order; the lengths differ")
    if len(set(records)) != len(records):
        raise DataError(
            "a patient has several records: Opacus clips and samples single records, so that this patient would be "
            "charged once and read several times. Keep one record a patient, or train with sfumato's own engines"
        )


@contextlib.contextmanager
def stated_training(
    run: Run, engine: PrivacyEngine, *, noise_multiplier: float, sampling_rate: float, steps: int
) -> Iterator[StatedCharge]:
    """A block in which Opacus trains with its own optimizer, for those that `charged_training` refuses.

    All of `steps` are charged before the body, which gives what it made to `keep`. Afterwards the engine's own count
    must not pass the charge. Raises PolicyRefusal for a run that states secure noise while the engine's `secure_mode`
    is off, BudgetExceeded, and EgressRefused where Opacus counted something else, which leaves the charge open.
    """
    if run.statement.tool != OWN_NOISE.name:
        raise PolicyRefusal("open the run with tool=sfumato.ledger.opacus.OWN_NOISE: its certificate says what it is")
    if not engine.secure_mode and run.statement.noise == "secure":
        raise PolicyRefusal(
            "Opacus's secure_mode is off: its noise comes from torch's generator, which can be predicted. Switch it on "
            "(it needs torchcsprng), train by 'charged_training', or open the run with noise=TestNoise(...)"
        )
    if not engine.secure_mode:
        warnings.warn("Opacus's secure_mode is off: the certificate will say TEST NOISE, no guarantee", stacklevel=3)
    before = list(engine.accountant.history)
    with run.stated([SampledGaussian(noise_multiplier, sampling_rate, steps)]) as charge:
        yield charge
        _check_history(before, engine.accountant.history, (noise_multiplier, sampling_rate, steps))


def _check_history(before: Sequence[Any], after: Sequence[Any], charged: tuple[float, float, int]) -> None:
    """Raise EgressRefused where Opacus's accountant counted other steps since `before` than were charged."""
    noise, rate, steps = charged
    made = sum(int(count) for *_, count in after) - sum(int(count) for *_, count in before)
    new = after[max(len(before) - 1, 0) :]
    like = all(math.isclose(z, noise) and math.isclose(q, rate) for z, q, _ in new)
    if not like or made > steps:
        raise EgressRefused(f"Opacus counted {made} steps that are not the {steps} charged; nothing may leave")
