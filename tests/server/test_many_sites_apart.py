"""Sites fitted apart have a model as large as they are many: a coordinator holds it once, and little beside it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from support.small_study import VALUES
from torch.utils._python_dispatch import TorchDispatchMode

from sfumato_common.generators.components import component_count
from sfumato_common.generators.flow.networks import flow
from sfumato_common.generators.flow.sampler import sampler
from sfumato_common.generators.spectral.fit import fit_release
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.spectral.release import noised_release
from sfumato_common.generators.starts import starting_model
from sfumato_common.generators.weights import to_arrays
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.phantom import arrays as phantom
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray
from sfumato_server.rounds.absorbing import absorb_replies
from sfumato_server.rounds.checkpoint import Checkpoints


def plan_of(sites: int, bandwidth: int) -> Plan:
    """The small study, of so many sites apart; nothing is accounted for."""
    spectral, trained = ({**stage, "noise_multiplier": 0.001} for stage in VALUES["stages"])
    stages = [{**spectral, "bandwidth": bandwidth, "by_site": True}, trained]
    named = {f"site-{number:03d}": {"nominal_patients": 100} for number in range(sites)}
    return parse({**VALUES, "private": False, "stages": stages, "sites": named}, Plan, "test")


def model_of(plan: Plan) -> dict[str, AnyArray]:
    """A released spectral model of the form that a fit's has."""
    many, layout = component_count(plan), Layout.of(plan)
    each = np.tile(np.diag(np.sqrt(layout.prior)).astype(np.float32), (many, 1, 1))
    mean, ones = np.zeros((many, layout.features), np.float32), np.ones(many, np.float32)
    return {
        "spectral/shares": ones / many,
        "spectral/mean": mean,
        "spectral/factor": each,
        "spectral/signal": 0.0 * each,
        "spectral/tail": 0.9 * ones,
    }


@contextmanager
def added() -> Iterator[Callable[[], int]]:
    """How many bytes numpy and Python had at most in the block, beyond those before it."""
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        yield lambda: tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def test_a_fit_holds_little_beside_the_model_that_it_makes():
    rng, sizes, peaks = np.random.default_rng(0), [], []
    images, labels, _ = phantom(0, 60, 16)

    def gaussian(part: AnyArray, sensitivity: float, multiplier: float) -> AnyArray:
        return part + rng.normal(size=part.shape) * sensitivity * multiplier

    for sites in (20, 60):
        plan = plan_of(sites, bandwidth=8)
        release = noised_release(Layout.of(plan), 0.8, images, labels, np.ones(len(images)), gaussian)
        with added() as most:
            model = fit_release(plan, dict.fromkeys(plan.sites, release), 0.8)
            peaks.append(most())
        sizes.append(sum(value.nbytes for value in model.values()))
    grown, more = sizes[1] - sizes[0], peaks[1] - peaks[0]
    assert grown > 2**20
    assert more < 1.5 * grown, "all components' covariances in double precision, and their directions, take 7 times it"


class _Largest(TorchDispatchMode):
    """The size of the largest tensor that operations make."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        each = made if isinstance(made, list | tuple) else [made]
        self.bytes = max([self.bytes, *(value.nbytes for value in each if torch.is_tensor(value))])
        return made


def test_what_draws_from_a_model_has_no_copy_of_it():
    plan = plan_of(24, bandwidth=16)
    arrays = model_of(plan)
    stage = plan.stages[1]
    network = starting_model("flow", flow, plan, stage, {"spectral": arrays})
    with torch.no_grad():
        # one that displaces what it draws, so that moments are put back
        for parameter in network.parameters():
            parameter += 0.05
    draw = sampler(plan, arrays | to_arrays("flow", network))
    with torch.no_grad(), _Largest() as made:
        images = draw(torch.tensor([0, 7, 47]), TorchDraws(torch.Generator().manual_seed(0)))
    assert images.shape == (3, 1, 16, 16)
    assert made.bytes < arrays["spectral/factor"].nbytes / 2


def test_a_model_is_checked_and_written_without_a_copy(tmp_path):
    plan = plan_of(24, bandwidth=16)
    arrays = model_of(plan)

    class Fitted:
        def absorb(self, number, replies, generator):
            pass

        def released(self):
            return arrays

        def __deepcopy__(self, memo):
            return self

    kept = Checkpoints(tmp_path, plan)
    with added() as most:
        absorb_replies(Fitted(), 1, plan.sites, {}, torch.Generator())
        kept.save("spectral", 1, arrays, arrays)
        kept.finish("spectral", arrays)
        assert most() < arrays["spectral/factor"].nbytes / 8
    number, state = kept.latest("spectral", 1)
    assert number == 1
    assert all(np.array_equal(state[name], value) for name, value in arrays.items())
