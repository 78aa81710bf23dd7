"""What cannot be trained privately is refused, by name of the layer and reason, for every engine."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from sfumato_client.training.dp.engines import ENGINES, private_engine
from sfumato_client.training.dp.suitability import check_private
from sfumato_common.errors import ConfigError
from sfumato_common.generators.flow.flows import flow_loss
from sfumato_common.generators.flow.glow import Glow
from sfumato_common.generators.gan.discriminator import Discriminator, real_loss

FORM = ((1, 16, 16),)


class Net(nn.Module):
    """A small discriminator with one extra layer before its head."""

    def __init__(self, extra: nn.Module) -> None:
        super().__init__()
        self.first, self.extra, self.head = nn.Conv2d(1, 4, 3, padding=1), extra, nn.LazyLinear(1)
        self(torch.zeros(2, 1, 16, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.extra(self.first(x)).flatten(1))[:, 0]


class MinibatchDeviation(nn.Module):
    """Karras et al. 2018, section 3: shows a discriminator how much the images of a batch differ."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        deviation = x.std(dim=0, correction=0).mean().expand(len(x), 1, *x.shape[2:])
        return torch.cat([x, deviation], dim=1)


class Buffered(nn.Identity):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))


class HiddenDropout(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.dropout(x, 0.5, self.training)


class HiddenCoupling(nn.Module):
    """Couples records with a strength that starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.strength * x.mean(dim=0, keepdim=True)


def loss(forward: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return functional.softplus(-forward(x))


def relativistic(forward: nn.Module, x: torch.Tensor) -> torch.Tensor:
    logits = forward(x)
    return functional.softplus(logits.mean() - logits)


def hooked() -> nn.Module:
    layer = nn.Conv2d(4, 4, 1)
    layer.register_forward_pre_hook(lambda *_: None)
    return layer


UNFIT = {
    "batch norm": (lambda: nn.BatchNorm2d(4), "'extra'.*couples the records"),
    "batch norm without statistics": (lambda: nn.BatchNorm2d(4, track_running_stats=False), "'extra'.*couples"),
    "sync batch norm": (lambda: nn.SyncBatchNorm(4), "'extra'.*couples"),
    "instance norm with statistics": (lambda: nn.InstanceNorm2d(4, track_running_stats=True), "'extra'.*running"),
    "buffer": (Buffered, "'extra'.*buffer"),
    "reflect padding": (lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "'extra'.*padding"),
    "spectral norm": (lambda: parametrizations.spectral_norm(nn.Conv2d(4, 4, 1)), "'extra'.*normalisation"),
    "weight norm": (lambda: parametrizations.weight_norm(nn.Conv2d(4, 4, 1)), "'extra'.*normalisation"),
    "old spectral norm": (lambda: nn.utils.spectral_norm(nn.Conv2d(4, 4, 1)), "'extra'.*normalisation"),
    "hook": (hooked, "'extra'.*hooks"),
    "dropout": (lambda: nn.Dropout(0.5), "'extra'.*random"),
    "functional dropout": (HiddenDropout, "random in training"),
    "minibatch deviation": (MinibatchDeviation, "rest of its batch"),
    "coupling at zero strength": (HiddenCoupling, "rest of its batch"),
}


@pytest.mark.filterwarnings("ignore:.*spectral_norm.*")
@pytest.mark.parametrize("name", UNFIT)
def test_unfit_layers_are_refused_with_name_and_reason(name):
    make, reason = UNFIT[name]
    torch.manual_seed(0)
    net = Net(nn.Identity())
    net.extra = make()
    if name == "minibatch deviation":
        net.head = nn.Linear(5 * 256, 1)
    with pytest.raises(ConfigError, match=reason):
        check_private(net, loss, FORM)


@pytest.mark.parametrize("engine", ["auto", *ENGINES])
def test_no_engine_can_be_forced_past_the_check(engine):
    with pytest.raises(ConfigError, match="couples"):
        private_engine(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)), loss, engine, FORM)


@pytest.mark.parametrize("coupled", [relativistic, lambda forward, x: loss(forward, x).mean()])
def test_losses_that_couple_records_are_refused(coupled):
    with pytest.raises(ConfigError, match="batch"):
        check_private(Net(nn.Identity()), coupled, FORM)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [16, 64])
def test_our_own_models_pass(size, channels):
    form = ((channels, size, size), (3,))
    check_private(Discriminator(channels, 3, 24), real_loss, form)
    check_private(Glow(channels, 3, 2, 3, 32), flow_loss, form)


def test_fit_layers_pass():
    for extra in (nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True), nn.PReLU(), nn.LayerNorm([4, 16, 16])):
        check_private(Net(extra), loss, FORM)


def test_hostile_weights_neither_hide_a_coupling_nor_fail_a_good_model():
    for value in (0.0, float("nan"), 1e30):
        for module, fit in ((Net(nn.GroupNorm(2, 4)), True), (Net(HiddenCoupling()), False)):
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.fill_(value)
            if fit:
                check_private(module, loss, FORM)
            else:
                with pytest.raises(ConfigError, match="rest of its batch"):
                    check_private(module, loss, FORM)


def test_the_check_leaves_module_and_global_generator_alone():
    module = Net(nn.Identity())
    before = [parameter.clone() for parameter in module.parameters()]
    state = torch.get_rng_state()
    check_private(module, loss, FORM)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
