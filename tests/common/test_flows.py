"""The contract of flows: every architecture with every coupling: invertible, exact, the identity at the start."""

from __future__ import annotations

import typing
from itertools import pairwise

import pytest
import torch

from sfumato_client.training.dp.loop import PatientLoop
from sfumato_client.training.dp.suitability import check_private
from sfumato_client.training.dp.vmap import WholeLossVmap
from sfumato_common.generators.flow.cinn import ConditionalINN
from sfumato_common.generators.flow.couplings import COUPLINGS
from sfumato_common.generators.flow.flows import KNOTS, Flow, flow_loss
from sfumato_common.generators.flow.glow import Glow
from sfumato_common.generators.flow.multiscale import MultiscaleINN, doubled, halved
from sfumato_common.generators.flow.settings import FlowStage

CLASSES = 3
FLOWS = {
    "glow": lambda channels, size, coupling, levels=2: Glow(channels, CLASSES, levels, 2, 8, coupling),
    "cinn": lambda channels, size, coupling, levels=2: ConditionalINN(
        channels, CLASSES, levels, 2, 8, coupling, size=size, dense=2
    ),
    "multiscale-cinn": lambda channels, size, coupling, levels=2: MultiscaleINN(
        channels, CLASSES, max(levels, (size // 8 - 1).bit_length()), 2, 8, coupling, size=size, dense=2
    ),
}
PAIRS = [(architecture, coupling) for architecture in FLOWS for coupling in COUPLINGS]


def scrambled(flow: Flow) -> Flow:
    """Every weight moved away from the start, as far as couplings visibly act and images stay images."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.3 * torch.randn_like(parameter) / max(1, parameter[0].numel()) ** 0.5
    return flow


def records(count: int, channels: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(count, channels, size, size), torch.eye(CLASSES)[torch.arange(count) % CLASSES]


def test_the_suite_knows_every_architecture_and_coupling_a_plan_may_name():
    fields = FlowStage.model_fields
    assert set(typing.get_args(fields["architecture"].annotation)) == set(FLOWS)
    assert set(typing.get_args(fields["coupling"].annotation)) == set(COUPLINGS)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [28, 64, 256])
@pytest.mark.parametrize(("architecture", "coupling"), PAIRS)
def test_inverses_are_exact_in_both_precisions(architecture, coupling, size, channels):
    flow = scrambled(FLOWS[architecture](channels, size, coupling))
    count = 1 if size == 256 else 2
    u, condition = records(count, channels, size)
    with torch.no_grad():
        for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-9)):
            flow, u, condition = flow.to(dtype), u.to(dtype), condition.to(dtype)
            v, _ = flow(u, condition)
            assert v.shape == u.shape
            assert (v - u).abs().max() > 0.1
            assert (flow.inverse(v, condition) - u).abs().max() < tolerance
            z = flow.latent(u, condition)
            assert z.shape == (count, channels * size**2)
            assert (flow.from_latent(z, condition) - u).abs().max() < tolerance


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("architecture", "coupling"), PAIRS)
def test_the_log_determinant_is_the_jacobians(architecture, coupling, channels):
    flow = scrambled(FLOWS[architecture](channels, 8, coupling)).double()
    u, condition = (part.double() for part in records(1, channels, 8))
    jacobian = torch.autograd.functional.jacobian(lambda value: flow.latent(value, condition)[0], u).flatten(1)
    assert torch.linalg.slogdet(jacobian)[1].item() == pytest.approx(flow(u, condition)[1].item(), abs=1e-6)


@pytest.mark.parametrize(("architecture", "coupling"), PAIRS)
def test_untrained_flows_are_the_identity(architecture, coupling):
    flow = FLOWS[architecture](1, 28, coupling)
    u, condition = records(3, 1, 28)
    v, log_det = flow(u, condition)
    assert torch.allclose(v, u, atol=1e-5)
    assert log_det.abs().max() == 0.0


@pytest.mark.parametrize(("architecture", "coupling"), PAIRS)
def test_flat_latents_are_the_latents(architecture, coupling):
    flow = scrambled(FLOWS[architecture](3, 16, coupling))
    u, condition = records(2, 3, 16)
    flat, image = flow.latent(u, condition), flow(u, condition)[0]
    assert torch.equal(flat.sort(dim=1).values, image.flatten(1).sort(dim=1).values)


def test_glows_flat_latents_begin_with_the_coarsest_level():
    flow = scrambled(FLOWS["glow"](1, 16, "affine", levels=3))
    u, condition = records(1, 1, 16)
    z = flow.latent(u, condition)
    finest = z.clone()
    finest[:, 128:] = 0.0  # half of all latents leave in the first split
    parts = [flow(flow.from_latent(value, condition), condition)[0] for value in (z, finest)]
    changed = (parts[0] - parts[1]).abs() > 1e-4
    by_subpixel = changed.view(8, 2, 8, 2).sum(dim=(0, 2))
    assert torch.equal(by_subpixel, torch.tensor([[0, 0], [64, 64]]))


@pytest.mark.parametrize(("architecture", "coupling"), PAIRS)
def test_every_weight_acts_and_every_condition_counts(architecture, coupling):
    flow = scrambled(FLOWS[architecture](1, 16, coupling))
    u, condition = records(2, 1, 16)
    flow_loss(flow, u, condition).sum().backward()
    assert all(float(parameter.grad.abs().max()) > 0 for parameter in flow.parameters())
    other = flow(u, condition.roll(1, dims=1))[0]
    assert (other - flow(u, condition)[0]).abs().max() > 1e-3


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("architecture", "coupling"), PAIRS)
def test_per_patient_gradients_are_exact(architecture, coupling, channels):
    flow = scrambled(FLOWS[architecture](channels, 16, coupling))
    check_private(flow, flow_loss, ((channels, 16, 16), (CLASSES,)))
    rows, weights = list(records(6, channels, 16)), torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.3, 0.7]])
    for clipping_norm in (0.01, 1e6):
        expected = PatientLoop(flow, flow_loss).clipped_sum(rows, clipping_norm, weights)
        found = WholeLossVmap(flow, flow_loss).clipped_sum(rows, clipping_norm, weights)
        size = torch.cat([part.flatten() for part in expected]).norm()
        error = torch.cat([(a - b).flatten() for a, b in zip(found, expected, strict=True)]).norm()
        assert error <= 1e-5 * max(1.0, size)


def test_a_refit_mends_scales_of_frequencies_and_places():
    flow = FLOWS["glow"](1, 32, "affine")
    with torch.no_grad():
        flow.refit.frequency[:, KNOTS // 2 :] = 1.0
    u, condition = records(64, 1, 32)
    with torch.no_grad():
        v, _ = flow(u, condition)
    ratio = (v.square().mean() / u.square().mean()).item()
    assert 3.0 < ratio < 5.0  # half of the spectrum e^2 times stronger


def test_weights_of_a_multi_scale_inn_grow_with_the_levels_and_not_with_the_pixels():
    def weights(size, levels):
        flow = MultiscaleINN(3, 2, levels, 4, 32, size=size, dense=4)
        return sum(parameter.numel() for parameter in flow.parameters())

    found = [weights(8 * 2**levels, levels) for levels in range(3, 7)]  # 64 to 512 pixels a side
    assert len({after - before for before, after in pairwise(found)}) == 1, "a level adds the same"
    assert found[-1] < 3e5
    whole = ConditionalINN(3, 2, 4, 4, 32, size=64, dense=4)
    assert sum(parameter.numel() for parameter in whole.parameters()) > 3 * found[0]


def test_the_haar_transform_is_orthonormal_and_its_first_channels_are_averages():
    u = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bands = halved(u)
    assert torch.allclose(doubled(bands), u)
    assert torch.allclose(bands.square().sum(), u.square().sum())
    assert torch.allclose(bands[:, :3], 2.0 * torch.nn.functional.avg_pool2d(u, 2))
