"""DP-SGD engines and steps: every engine equals the record loop, and one patient never moves a sum by more than C."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sfumato_client.dataset.cohort import Cohort
from sfumato_client.training.dp.engines import ENGINES, RecordLoop
from sfumato_client.training.dp.step import noisy_mean, patient_batches, secret_generator
from sfumato_common.config.plan import FlowStage
from sfumato_common.models.gan import Discriminator, real_loss
from sfumato_common.models.glow import Glow, flow_loss
from sfumato_common.privacy.accountant import epsilon
from sfumato_common.privacy.events import SampledGaussian
from sfumato_common.privacy.noise import SecureNoise, TestNoise

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")


def scrambled(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return module


def discriminator() -> nn.Module:
    return scrambled(Discriminator(1, 2, 8))


def flow() -> nn.Module:
    return scrambled(Glow(1, 2, 2, 2, 8))


CASES = [("opacus", discriminator, real_loss), ("vmap", discriminator, real_loss), ("vmap", flow, flow_loss)]
WITH_LOOP = [*CASES, ("loop", discriminator, real_loss), ("loop", flow, flow_loss)]


def records(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(count, 1, 16, 16), torch.eye(2)[torch.arange(count) % 2]


def norm_of(parts: list[torch.Tensor]) -> float:
    return float(torch.cat([part.double().flatten() for part in parts]).norm())


@pytest.mark.parametrize(("name", "make", "loss"), CASES)
@pytest.mark.parametrize("count", [0, 1, 5, 37])
@pytest.mark.parametrize("clipping_norm", [0.05, 1e6])
def test_engines_equal_the_record_loop(name, make, loss, count, clipping_norm):
    module, batch = make(), records(count)
    expected = RecordLoop(module, loss).clipped_sum(batch, clipping_norm)
    found = ENGINES[name](module, loss).clipped_sum(batch, clipping_norm)
    assert [part.shape for part in found] == [parameter.shape for parameter in module.parameters()]
    difference = norm_of([a - b for a, b in zip(found, expected, strict=True)])
    assert difference <= 1e-5 * max(1.0, norm_of(expected))


@pytest.mark.parametrize(("name", "make", "loss"), WITH_LOOP)
def test_removing_a_patient_moves_the_sum_by_at_most_the_clipping_norm(name, make, loss):
    clipping_norm = 0.02  # far below the gradients, so that every record is clipped
    x, y = records(6)
    x[2] *= 1000.0
    engine = ENGINES[name](make(), loss)
    whole = engine.clipped_sum((x, y), clipping_norm)
    for gone in range(6):
        kept = [index for index in range(6) if index != gone]
        without = engine.clipped_sum((x[kept], y[kept]), clipping_norm)
        moved = norm_of([a - b for a, b in zip(whole, without, strict=True)])
        assert moved <= clipping_norm * (1 + 1e-5)
        assert moved > 0.0


@pytest.mark.parametrize(("name", "make", "loss"), WITH_LOOP)
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_a_broken_image_is_contained(name, make, loss, poison):
    x, y = records(5)
    x[3] = poison
    kept = [0, 1, 2, 4]
    engine = ENGINES[name](make(), loss)
    whole, without = engine.clipped_sum((x, y), 0.5), engine.clipped_sum((x[kept], y[kept]), 0.5)
    assert all(torch.isfinite(part).all() for part in whole)
    assert norm_of([a - b for a, b in zip(whole, without, strict=True)]) <= 0.5 * (1 + 1e-5)


def test_the_log_determinant_of_bare_parameters_is_in_the_gradient():
    # hooks would drop it silently: the reason the flow uses vmap over the whole loss
    module, batch = flow(), records(4)
    names = [name for name, _ in module.named_parameters()]
    gradient = ENGINES["vmap"](module, flow_loss).clipped_sum(batch, 1e6)
    by_name = dict(zip(names, gradient, strict=True))
    assert all(by_name[name].abs().sum() > 0 for name in names if name.endswith(("log_scale", "log_diagonal")))


@pytest.mark.parametrize("name", ["opacus", "vmap", "loop"])
def test_engines_follow_the_modules_weights_and_leave_it_clean(name):
    module, batch = discriminator(), records(4)
    engine = ENGINES[name](module, real_loss)
    engine.clipped_sum(batch, 1.0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1
    fresh = ENGINES["loop"](module, real_loss).clipped_sum(batch, 1.0)
    again = engine.clipped_sum(batch, 1.0)
    assert norm_of([a - b for a, b in zip(fresh, again, strict=True)]) < 1e-5
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not any(module._forward_hooks for module in module.modules())


def cohort(patients: int = 40) -> Cohort:
    rng = np.random.default_rng(0)
    owners = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
    images = np.repeat(owners[:, None, None], 16, axis=1).repeat(16, axis=2).astype(np.uint8)
    return Cohort(images, (owners % 2).astype(np.int64), owners)


def test_batches_are_poisson_over_patients_with_one_image_each():
    sizes, members = [], np.zeros(40)
    for images, labels in patient_batches(cohort(), 0.1, 1500, secret_generator(SecureNoise()), (1, 16, 16)):
        assert images.shape[1:] == (1, 16, 16)
        chosen = np.rint((images[:, 0, 0, 0].numpy() + 1) * 127.5).astype(int)
        assert len(set(chosen)) == len(chosen)
        assert np.array_equal(labels.numpy(), chosen % 2)
        members[chosen] += 1
        sizes.append(len(chosen))
    assert 0 in sizes  # (0.9)^40 = 1.5 %: empty batches happen and are yielded, not skipped
    assert np.mean(sizes) == pytest.approx(4.0, abs=0.3)
    assert np.var(sizes) == pytest.approx(40 * 0.1 * 0.9, abs=0.6)
    assert np.abs(members / 1500 - 0.1).max() < 0.04


def test_batches_hide_behind_the_whole_twister_state():
    one, two = (secret_generator(TestNoise(3)) for _ in range(2))
    assert torch.equal(torch.rand(2000, generator=one), torch.rand(2000, generator=two))
    drawn = torch.rand(200_000, generator=secret_generator(SecureNoise()))
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.005)
    states = [secret_generator(SecureNoise()).get_state()[24 : 24 + 8 * 624] for _ in range(2)]
    assert (states[0].view(torch.int64) == states[1].view(torch.int64)).sum() == 0


def stage(**changes: float) -> FlowStage:
    value = {
        "kind": "flow",
        "rounds": 1,
        "local_steps": 1,
        "sampling_rate": 0.1,
        "clipping_norm": 2.0,
        "noise_multiplier": 1.5,
        "learning_rate": 0.1,
    }
    return FlowStage.model_validate({**value, **changes})


def test_an_empty_batch_is_noised_like_any_other():
    gradient = noisy_mean([torch.zeros(300, 100), torch.zeros(20_000)], stage(), 8.0, SecureNoise())
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
