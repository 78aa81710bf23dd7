"""The conditional INN on vectors: invertible, exact, volumes kept but by its diagonal, the identity at the start."""

from __future__ import annotations

import pytest
import torch

from sfumato_client.training.dp.loop import PatientLoop
from sfumato_client.training.dp.suitability import check_private
from sfumato_client.training.dp.vmap import WholeLossVmap
from sfumato_common.tabular.inn import GIN, TableINN, table_loss

CLASSES = 3
WIDTHS = [2, 3, 7, 30]


def flow_of(width: int, scrambled: bool = True) -> TableINN:
    flow = TableINN(width, CLASSES, 4, 16, torch.Generator().manual_seed(5))
    if scrambled:
        generator = torch.Generator().manual_seed(6)
        with torch.no_grad():
            for parameter in flow.parameters():
                parameter += 0.5 * torch.randn(parameter.shape, generator=generator)
    return flow


def records(count: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(7))
    return x, torch.eye(CLASSES)[torch.arange(count) % CLASSES]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_inverse_is_exact_in_both_precisions(width):
    flow = flow_of(width)
    x, y = records(50, width)
    with torch.no_grad():
        for dtype, tolerance in ((torch.float32, 1e-3), (torch.float64, 1e-10)):
            flow, x, y = flow.to(dtype), x.to(dtype), y.to(dtype)
            z, _ = flow(x, y)
            assert z.dtype == dtype
            assert (z - x).abs().max() > 0.1
            assert (flow.inverse(z, y) - x).abs().max() < tolerance


@pytest.mark.parametrize("width", WIDTHS)
def test_the_log_determinant_is_the_jacobians(width):
    flow = flow_of(width).double()
    x, y = (part.double() for part in records(1, width))
    jacobian = torch.autograd.functional.jacobian(lambda value: flow(value, y)[0][0], x).flatten(1)
    assert torch.linalg.slogdet(jacobian)[1].item() == pytest.approx(flow(x, y)[1].item(), abs=1e-8)


def test_couplings_keep_volumes_and_scale_single_values():
    x, raw = torch.randn(5, 6, generator=torch.Generator().manual_seed(1)), 3 * torch.eye(5, 12)
    changed, log_det = GIN.forward(x, raw)
    assert log_det.abs().max() < 1e-6
    assert not torch.allclose(changed, x)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_new_flow_is_the_identity_and_the_same_everywhere(width):
    x, y = records(9, width)
    z, log_det = flow_of(width, scrambled=False)(x, y)
    assert torch.equal(z, x)
    assert not log_det.any()
    again = flow_of(width, scrambled=False)
    for one, other in zip(flow_of(width, scrambled=False).parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_every_value_depends_on_the_condition_and_on_others():
    flow = flow_of(7).double()
    x, y = (part.double() for part in records(1, 7))
    jacobian = torch.autograd.functional.jacobian(lambda value: flow(value, y)[0][0], x).reshape(7, 7)
    assert (jacobian.abs() > 1e-6).sum(dim=1).min() > 1
    assert (flow(x, y)[0] - flow(x, y.roll(1, dims=1))[0]).abs().min() > 1e-6


def test_records_do_not_see_each_other():
    flow = flow_of(7)
    check_private(flow, table_loss, ((7,), (CLASSES,)))
    x, y = records(8, 7)
    with torch.no_grad():
        together = flow(x, y)[0]
        alone = torch.cat([flow(x[i : i + 1], y[i : i + 1])[0] for i in range(8)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_its_engine_equals_the_loop():
    flow = flow_of(5)
    x, y = records(6, 5)
    slow, fast = (kind(flow, table_loss).clipped_sum([x, y], 0.2) for kind in (PatientLoop, WholeLossVmap))
    for one, other in zip(slow, fast, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_training_on_skewed_classes_normalises_them():
    generator = torch.Generator().manual_seed(2)
    y = torch.eye(2)[torch.randint(2, (400,), generator=generator)]
    x = torch.randn(400, 4, generator=generator) * 0.3 + 2.0 * y[:, :1] - 1.0
    flow = TableINN(4, 2, 2, 16, torch.Generator().manual_seed(3))
    optimiser = torch.optim.Adam(flow.parameters(), lr=0.03)
    start = float(table_loss(flow, x, y).detach().mean())
    for _ in range(100):
        optimiser.zero_grad()
        table_loss(flow, x, y).mean().backward()
        optimiser.step()
    z = flow(x, y)[0].detach()
    assert float(table_loss(flow, x, y).detach().mean()) < start - 0.5
    assert abs(float(z.std()) - 1.0) < 0.15
    assert all(abs(float(z[y[:, k] == 1].mean())) < 0.15 for k in range(2))
