"""One contract for every DP-SGD engine: equal to the patient loop on every model, or refused with the reason."""

from __future__ import annotations

import copy
import dataclasses
import typing
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from sfumato_client.flower.ranks import ranks_of
from sfumato_client.site.home import SiteHome
from sfumato_client.training.dp import products
from sfumato_client.training.dp.engines import ENGINES, automatic_engine, private_engine
from sfumato_client.training.dp.shared import SharedSums, part_of_step
from sfumato_common.errors import ConfigError
from sfumato_common.generators import NETWORKS
from sfumato_common.generators.diffusion.denoiser import AdaptedDenoiser, Adapter, Denoiser
from sfumato_common.generators.diffusion.denoising import denoising_loss
from sfumato_common.generators.flow.flows import flow_loss
from sfumato_common.generators.flow.glow import Glow
from sfumato_common.generators.gan.discriminator import Discriminator, real_loss
from sfumato_common.generators.settings import EngineName
from sfumato_common.generators.stylegan2.discriminator import Discriminator as StyleGan2Discriminator
from sfumato_common.memory import VARIABLE

SIZE, CLASSES = 16, 2


class EveryLayer(nn.Module):
    """All that book-keeping knows beside what the discriminator has: strides, dilation, no bias, a linear over rows."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, (3, 5), stride=(1, 2), padding=(2, 0), dilation=(2, 1), bias=False)
        self.instance = nn.InstanceNorm2d(4, affine=True)
        self.slope, self.one_slope = nn.PReLU(4), nn.PReLU()
        self.second = nn.Conv2d(4, 6, 1)
        self.layer = nn.LayerNorm([6, 3], bias=False)
        self.rows = nn.Linear(3, 5)
        self.head = nn.Linear(30, 1)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        x = self.one_slope(self.second(self.slope(self.instance(self.first(x)))))
        x = self.layer(functional.adaptive_avg_pool2d(x, (4, 3)).transpose(1, 2))
        return self.head(self.rows(x).mean(dim=1).flatten(1))[:, 0] * (1.0 + condition[:, 0])


def small_diffusion() -> nn.Module:
    return AdaptedDenoiser(scrambled(Denoiser(1, SIZE, CLASSES, 4, 16, 2, 2)), Adapter(1, CLASSES, 4, 16, 2, 3))


def diffusion_loss(forward: nn.Module, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
    """Three noise levels an image, whose noise is of the image itself: this suite's records have two parts."""
    noise = torch.stack([x.flip(2), x.flip(3), x.transpose(2, 3)], dim=1)
    return denoising_loss(forward, x, condition, noise, x.new_tensor([0.2, 0.7, 1.3]).expand(len(x), -1))


@dataclasses.dataclass(frozen=True)
class Case:
    make: Callable[[], nn.Module]
    loss: Callable[..., torch.Tensor]
    refused_by: tuple[str, ...] = ()
    private: bool = True


SEE_LAYERS = ("opacus", "opacus-ew", "bookkeeping")
CASES = {
    "discriminator": Case(lambda: Discriminator(1, CLASSES, 8), real_loss),
    "stylegan2-discriminator": Case(lambda: StyleGan2Discriminator(SIZE, 1, CLASSES, 128, 16, spread=False), real_loss),
    "flow": Case(lambda: Glow(1, CLASSES, 2, 2, 8), flow_loss, SEE_LAYERS),
    "adapter": Case(small_diffusion, diffusion_loss, SEE_LAYERS),
    "every-layer": Case(EveryLayer, real_loss, ("opacus", "opacus-ew")),
}
NEVER_TRAINED_ON_PATIENTS = {"generator", "autoencoder", "stylegan2-generator", "denoiser"}
FAST = [name for name in ENGINES if name != "vmap-compiled"]
PAIRS = [(engine, case) for engine in FAST for case in CASES if engine not in CASES[case].refused_by]
EXACT = [pair for pair in PAIRS if pair[0] != "loop"]


def scrambled(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return module


def engine_of(engine: str, case: str, module: nn.Module | None = None):
    return ENGINES[engine](module or scrambled(CASES[case].make()), CASES[case].loss)


def records(patients: int, views: int = 1) -> tuple[list[torch.Tensor], torch.Tensor]:
    torch.manual_seed(1)
    rows = patients * views
    weights = torch.rand(patients, views) + 0.1
    if views > 1:
        weights[::2, -1] = 0.0  # a patient with fewer images
    return [torch.randn(rows, 1, SIZE, SIZE), torch.eye(CLASSES)[torch.arange(rows) % CLASSES]], weights


def norm_of(parts: list[torch.Tensor]) -> float:
    return float(torch.cat([part.double().flatten() for part in parts]).norm())


def distance(one: list[torch.Tensor], two: list[torch.Tensor]) -> float:
    return norm_of([a - b for a, b in zip(one, two, strict=True)])


def test_every_registered_model_and_engine_is_in_this_suite():
    assert set(NETWORKS) <= set(CASES) | NEVER_TRAINED_ON_PATIENTS
    assert set(typing.get_args(EngineName)) == {"auto", *ENGINES}
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for case, on_cpu in (("discriminator", "bookkeeping"), ("flow", "vmap"), ("adapter", "vmap")):
        module = CASES[case].make()
        assert (automatic_engine(module, cpu), automatic_engine(module, cuda)) == (on_cpu, "vmap")


@pytest.mark.parametrize("clipping_norm", [0.05, 1e6])
@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("patients", [0, 1, 37, 64])
@pytest.mark.parametrize(("engine", "case"), EXACT)
def test_engines_equal_the_patient_loop(engine, case, patients, views, clipping_norm):
    module, (rows, weights) = scrambled(CASES[case].make()), records(patients, views)
    expected = engine_of("loop", case, module).clipped_sum(rows, clipping_norm, weights)
    found = engine_of(engine, case, module).clipped_sum(rows, clipping_norm, weights)
    assert [part.shape for part in found] == [parameter.shape for parameter in module.parameters()]
    assert distance(found, expected) <= 1e-5 * max(1.0, norm_of(expected))
    assert patients == 0 or norm_of(expected) > 0


@pytest.mark.parametrize("way", typing.get_args(products.Way))
@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("case", ["discriminator", "every-layer"])
def test_the_three_ways_of_book_keeping_are_one(monkeypatch, case, views, way):
    monkeypatch.setattr(products, "cheapest", lambda *sizes: way)
    module, (rows, weights) = scrambled(CASES[case].make()), records(7, views)
    for clipping_norm in (0.05, 1e6):
        expected = engine_of("loop", case, module).clipped_sum(rows, clipping_norm, weights)
        found = engine_of("bookkeeping", case, module).clipped_sum(rows, clipping_norm, weights)
        assert distance(found, expected) <= 1e-5 * max(1.0, norm_of(expected))


def test_each_way_is_the_cheapest_somewhere():
    sizes = [(1024, 9, 24), (16, 1584, 176), (256, 2016, 448)]
    assert [products.cheapest(*size) for size in sizes] == ["samples", "gram", "alone"]


@pytest.mark.parametrize(("engine", "case"), PAIRS)
def test_without_weights_each_row_is_a_patient(engine, case):
    rows, _ = records(5)
    made = engine_of(engine, case)
    assert distance(made.clipped_sum(rows, 0.1), made.clipped_sum(rows, 0.1, torch.ones(5, 1))) == 0.0


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize(("engine", "case"), PAIRS)
def test_removing_a_patient_moves_the_sum_by_at_most_the_clipping_norm(engine, case, views):
    clipping_norm = 0.02  # far below the gradients, so that every patient is clipped
    rows, weights = records(6, views)
    rows[0][2 * views : 3 * views] *= 1000.0
    made = engine_of(engine, case)
    whole = made.clipped_sum(rows, clipping_norm, weights)
    for gone in range(6):
        kept = [index for index in range(6) if index != gone]
        by_patient = [part.unflatten(0, (6, views))[kept].flatten(0, 1) for part in rows]
        moved = distance(whole, made.clipped_sum(by_patient, clipping_norm, weights[kept]))
        assert 0.0 < moved <= clipping_norm * (1 + 1e-5)


@pytest.mark.parametrize("way", typing.get_args(products.Way))
def test_an_even_background_does_not_slip_past_the_clip(monkeypatch, way):
    # positions cancel: the gradient is thousands of times smaller than what each position contributes
    monkeypatch.setattr(products, "cheapest", lambda *sizes: way)
    torch.manual_seed(2)
    module = nn.Sequential(nn.Conv2d(1, 8, 3), nn.GroupNorm(1, 8), nn.Conv2d(8, 1, 1), nn.Flatten())
    with torch.no_grad():
        module[0].bias += 100.0
    x = 1.0 + 1e-3 * torch.randn(1, 1, SIZE, SIZE)
    loss = lambda forward, rows: forward(rows).square().sum(dim=1)  # noqa: E731
    loop = ENGINES["loop"](module, loss).clipped_sum([x], 1e9)
    clipping_norm = 1e-3 * norm_of(loop)
    moved = norm_of(ENGINES["bookkeeping"](module, loss).clipped_sum([x], clipping_norm))
    assert moved <= clipping_norm * (1 + 1e-5)


def test_a_gram_norm_never_comes_out_too_small():
    torch.manual_seed(3)
    seen = 100.0 + 1e-2 * torch.randn(64, 49, 32)
    given = torch.randn(64, 8, 49)
    given -= given.mean(dim=2, keepdim=True)
    exact = torch.bmm(given.double(), seen.double()).square().sum(dim=(1, 2))
    assert (products._gram_norms(seen, given) >= exact).all()


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf"), 1e30])
@pytest.mark.parametrize(("engine", "case"), PAIRS)
def test_a_broken_image_is_contained(engine, case, poison):
    rows, weights = records(5, 3)
    rows[0][3 * 3 + 1] = poison
    kept = [0, 1, 2, 4]
    made = engine_of(engine, case)
    whole = made.clipped_sum(rows, 0.5, weights)
    without = made.clipped_sum([part.unflatten(0, (5, 3))[kept].flatten(0, 1) for part in rows], 0.5, weights[kept])
    assert all(torch.isfinite(part).all() for part in whole)
    assert distance(whole, without) <= (0.5 if abs(poison) < float("inf") else 0.0) * (1 + 1e-5) + 1e-6


@pytest.mark.parametrize("way", typing.get_args(products.Way))
def test_a_broken_image_is_contained_in_every_way(monkeypatch, way):
    monkeypatch.setattr(products, "cheapest", lambda *sizes: way)
    test_a_broken_image_is_contained("bookkeeping", "discriminator", float("nan"))


@pytest.mark.parametrize(("engine", "case"), PAIRS)
def test_padding_counts_as_exactly_zero(engine, case):
    rows, weights = records(9, 3)
    weights[4:] = 0.0
    made = engine_of(engine, case)
    first = made.clipped_sum([part[: 4 * 3] for part in rows], 0.5, weights[:4])
    assert distance(made.clipped_sum(rows, 0.5, weights), first) <= 1e-6
    nobody = made.clipped_sum(rows, 0.5, torch.zeros_like(weights))
    assert norm_of(nobody) == 0.0


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_the_log_determinant_of_bare_parameters_is_in_the_gradient(engine):
    # one pixel per channel, no weight on the latents: only the log-determinant is left, -1 nat a dimension each
    module = Glow(1, CLASSES, 1, 1, 8)
    flat = lambda forward, u, condition: -forward(u, condition)[1]  # noqa: E731
    found = ENGINES[engine](module, flat).clipped_sum(records(1)[0], 1e6)
    by_name = {name: part for (name, _), part in zip(module.named_parameters(), found, strict=True)}
    positions = (SIZE // 2) ** 2
    for name in ("log_scale", "log_diagonal"):
        assert torch.allclose(by_name[f"levels.0.0.{name}"], torch.full((4,), -float(positions)).double())


@pytest.mark.parametrize(("engine", "case"), PAIRS)
def test_engines_follow_the_modules_weights_and_leave_it_clean(engine, case):
    module, (rows, weights) = scrambled(CASES[case].make()), records(4)
    made = engine_of(engine, case, module)
    made.clipped_sum(rows, 1.0, weights)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter *= 1.1
    expected = engine_of("loop", case, module).clipped_sum(rows, 1.0, weights)
    assert distance(made.clipped_sum(rows, 1.0, weights), expected) < 1e-5
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert set(vars(module)) == set(vars(CASES[case].make()))


def test_book_keeping_holds_no_image_after_a_batch():
    made = engine_of("bookkeeping", "discriminator")
    made.clipped_sum(*records(5)[:1], 1.0)
    tensors = [value for tap in made._taps for value in vars(tap).values() if isinstance(value, torch.Tensor)]
    assert not tensors and not any(tap._samples or tap.edge for tap in made._taps)


class _Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.scale = nn.Linear(4, 1), nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x)[:, 0] * self.scale


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))[:, 0]


class _Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.tanh(self.layer(x)))[:, 0]


class _Unused(_Twice):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[:, 0]


class _Outside(nn.Module):
    """Uses its layer, and the layer's weight once more outside of it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[:, 0] + self.layer.weight.square().sum()


def row_loss(forward: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return functional.softplus(forward(x))


@pytest.mark.parametrize("engine", SEE_LAYERS)
@pytest.mark.parametrize(
    ("make", "reason"),
    [(_Bare, "the model.*owns parameters"), (_Tied, "shared layer .second"), (lambda: Glow(1, 2, 1, 1, 8), "Refit")],
)
def test_engines_that_see_layers_refuse_parameters_outside_them(engine, make, reason):
    with pytest.raises(ConfigError, match=reason):
        ENGINES[engine](make(), row_loss)


@pytest.mark.parametrize("engine", SEE_LAYERS)
@pytest.mark.parametrize("make", [_Twice, _Outside])
def test_what_no_list_of_layers_shows_is_found_by_comparing_sums(engine, make):
    module, rows = scrambled(make()), [torch.randn(3, 4)]
    expected = ENGINES["loop"](module, row_loss).clipped_sum(rows, 0.1)
    found = ENGINES["vmap"](module, row_loss).clipped_sum(rows, 0.1)
    if _accepted(engine, module):  # Opacus adds up a layer's uses, so it may be right
        found = ENGINES[engine](module, row_loss).clipped_sum(rows, 0.1)
    assert engine != "bookkeeping" or not _accepted(engine, module)
    assert distance(found, expected) <= 1e-5


def _accepted(engine: str, module: nn.Module) -> bool:
    try:
        private_engine(module, row_loss, engine, [(4,)])
    except ConfigError:
        return False
    return True


def test_book_keeping_says_what_it_cannot_follow():
    for make, reason in ((_Twice, "'layer', used twice"), (_Unused, "'spare', which forward does not call")):
        with pytest.raises(ConfigError, match=reason):
            ENGINES["bookkeeping"](make(), row_loss).clipped_sum([torch.randn(3, 4)], 1.0)


def test_auto_is_what_the_model_declares_and_vmap_where_it_declares_nothing():
    form = ((1, SIZE, SIZE), (CLASSES,))
    for case, name in (("discriminator", "bookkeeping"), ("flow", "vmap"), ("every-layer", "vmap")):
        made = private_engine(scrambled(CASES[case].make()), CASES[case].loss, "auto", form)
        assert type(made) is ENGINES[name]


@pytest.mark.parametrize("case", ["discriminator", "flow"])
@pytest.mark.parametrize("name", ["loop", "opacus", "bookkeeping", "vmap"])
@pytest.mark.parametrize("places", [32, 96])
def test_a_patients_gradient_does_not_depend_on_its_place_or_on_who_else_came(name, case, places):
    # to the last bit: crafted weights could blow one up, and then one patient would move another's contribution
    if case == "flow" and name in ("opacus", "bookkeeping"):
        pytest.skip("refused for a flow")
    module = CASES[case].make()
    engine = engine_of(name, case, scrambled(module))
    (image, label), found = [part[:1] for part in records(1)[0]], []
    for place in (0, 7, 31, places - 1):
        others = [part.clone() for part in records(places)[0]]
        others[0] *= 1.0 + place
        for part, own in zip(others, (image, label), strict=True):
            part[place] = own[0]
        weights = torch.zeros(places, 1)
        weights[place] = 1.0
        found.append(torch.cat([part.flatten() for part in engine.clipped_sum(others, 1e9, weights)]))
    assert found[0].abs().sum() > 0
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_compiling_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="C\\+\\+ compiler"):
        engine_of("vmap-compiled", "flow")


@pytest.mark.parametrize(("name", "case"), [("bookkeeping", "discriminator"), ("vmap", "flow")])
def test_memory_says_how_many_rows_are_held_and_changes_last_bits_at_most(name, case, monkeypatch):
    module, (rows, weights) = scrambled(CASES[case].make()), records(24, 2)
    expected, sizes = engine_of("loop", case, module).clipped_sum(rows, 0.05, weights), []
    for budget in ("1", "64GiB"):
        monkeypatch.setenv(VARIABLE, budget)
        engine = engine_of(name, case, module)
        held = engine._rows(rows, 10**6)
        sizes.append(held)
        found = engine.clipped_sum(rows, 0.05, weights)
        assert distance(found, expected) <= 1e-5 * max(1.0, norm_of(expected))
        monkeypatch.setenv(VARIABLE, "2GiB")
        assert engine._rows(rows, 10**6) == held, "one form of chunks in the whole of a training"
    assert sizes[0] == 1 and sizes[1] > 1000


@pytest.mark.slow
@pytest.mark.parametrize("views", [1, 3])
def test_the_compiled_engine_equals_the_loop(views):
    module = scrambled(Glow(1, CLASSES, 1, 1, 8))
    rows, weights = records(37, views)
    expected = engine_of("loop", "flow", module).clipped_sum(rows, 0.05, weights)
    found = engine_of("vmap-compiled", "flow", module).clipped_sum(rows, 0.05, weights)
    assert distance(found, expected) <= 1e-5 * max(1.0, norm_of(expected))


class Here:
    """Ranks in this process, each with a copy of the module: what they compute is what processes of their own would."""

    def __init__(self, world: int) -> None:
        self.world, self.replicas, self.sums, self.handed = world, [], [], []

    def begin(self, module, loss, engine):
        made = [copy.deepcopy(module) for _ in range(1, self.world)]
        for replica in made:
            with torch.no_grad():
                for parameter in replica.parameters():
                    parameter.zero_()  # what a step does not bring is not there
        self.replicas = [(replica, ENGINES[engine](replica, loss)) for replica in made]

    def hand_out(self, rank, arrays, clipping_norm):
        self.handed.append({name: value.shape for name, value in arrays.items()})
        self.sums.append(part_of_step(*self.replicas[rank - 1], arrays, clipping_norm))

    def add_up(self, own):
        total, self.sums = sum(self.sums, own), []
        return total


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize(("engine", "case"), PAIRS)
def test_shared_sums_equal_the_patient_loop(engine, case, world):
    module, here = scrambled(CASES[case].make()), Here(world)
    here.begin(module, CASES[case].loss, engine)
    shared = SharedSums(engine_of(engine, case, module), module, here)
    for patients, views, clipping_norm in ((0, 1, 1.0), (1, 1, 0.05), (37, 3, 0.05), (64, 1, 1e6)):
        rows, weights = records(patients, views)
        expected = engine_of("loop", case, module).clipped_sum(rows, clipping_norm, weights)
        found = shared.clipped_sum(rows, clipping_norm, weights)
        assert [part.shape for part in found] == [parameter.shape for parameter in module.parameters()]
        assert all(part.dtype == torch.float64 for part in found)
        assert distance(found, expected) <= 1e-5 * max(1.0, norm_of(expected))


def test_what_a_rank_is_handed_has_one_form_whoever_came():
    module, here = scrambled(CASES["discriminator"].make()), Here(3)
    here.begin(module, real_loss, "vmap")
    shared = SharedSums(engine_of("vmap", "discriminator", module), module, here)
    rows, weights = records(32, 2)
    for came in (0, 1, 17, 32):
        given = weights.clone()
        given[came:] = 0.0
        shared.clipped_sum(rows, 1.0, given)
    assert len(here.handed) == 2 * 4
    assert all(form == here.handed[0] for form in here.handed)


def noised_records(patients: int, views: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Records of the adapter's own loss, which brings its noise and levels."""
    rows, weights = records(patients, views)
    count = patients * views
    return [*rows, torch.randn(count, 3, 1, SIZE, SIZE), torch.full((count, 3), 0.7)], weights


IMPORTED = {case: (CASES[case].loss, records) for case in ("discriminator", "stylegan2-discriminator", "flow")}
IMPORTED["adapter"] = (denoising_loss, noised_records)  # a process of its own imports the loss


@pytest.mark.parametrize("case", IMPORTED)
def test_two_processes_by_gloo_equal_the_patient_loop(case, tmp_path):
    module, (loss, made) = scrambled(CASES[case].make()), IMPORTED[case]
    with ranks_of(SiteHome(tmp_path), 2, 60.0) as ranks:
        name = automatic_engine(module, torch.device("cpu"))
        ranks.begin(module, loss, name)
        shared = SharedSums(ENGINES[name](module, loss), module, ranks)
        for patients, views, clipping_norm in ((0, 1, 1.0), (37, 3, 0.05), (64, 1, 1e6)):
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter *= 1.01  # the other rank follows the weights
            rows, weights = made(patients, views)
            expected = ENGINES["loop"](module, loss).clipped_sum(rows, clipping_norm, weights)
            found = shared.clipped_sum(rows, clipping_norm, weights)
            assert distance(found, expected) <= 1e-5 * max(1.0, norm_of(expected))
        [other] = ranks.processes
    assert not Path(f"/proc/{other}").exists(), "it ends with the work"
    assert not list((tmp_path / "ranks").iterdir())
