"""The DP-SGD step: noise on every sum, secret batches, a public denominator, accounting equal to Opacus's."""

from __future__ import annotations

import pytest
import torch
from support.plans import dp_sgd

from sfumato_client.training.dp.step import noisy_mean
from sfumato_common.accounting.accountant import epsilon
from sfumato_common.accounting.events import SampledGaussian
from sfumato_common.generators.flow.settings import FlowStage
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")


def stage(**changes: float) -> FlowStage:
    value = dp_sgd(
        kind="flow", local_steps=1, sampling_rate=0.1, clipping_norm=2.0, noise_multiplier=1.5, learning_rate=0.1
    )
    return FlowStage.model_validate({**value, **changes})


def test_an_empty_batch_is_noised_like_any_other():
    gradient = noisy_mean(
        [torch.zeros(300, 100), torch.zeros(20_000)], stage(), 8.0, NoiseRecorder(SecureNoise(), "entry")
    )
    assert [part.shape for part in gradient] == [(300, 100), (20_000,)]
    for part in gradient:
        assert part.std().item() == pytest.approx(2.0 * 1.5 / 8.0, rel=0.03)


@pytest.mark.parametrize(("sigma", "rate", "steps"), [(1.4, 0.15, 60), (1.0, 0.05, 300), (2.5, 0.2, 40)])
def test_epsilon_agrees_with_opacus(sigma, rate, steps):
    from opacus.accountants import PRVAccountant, RDPAccountant

    own = epsilon([SampledGaussian(sigma, rate, steps)], 1e-5)
    figures = []
    for kind in (PRVAccountant, RDPAccountant):
        accountant = kind()
        accountant.history = [(sigma, rate, steps)]
        figures.append(accountant.get_epsilon(delta=1e-5))
    assert own == pytest.approx(figures[0], rel=0.03)
    assert own <= figures[1] * 1.001  # RDP only bounds it
    assert own >= 0.75 * figures[1]
