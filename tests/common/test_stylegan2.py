"""StyleGAN2: the published layout draws the same images; augmentation, averages and penalties do what they say."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import save
from support.plans import dp_sgd, small_plan
from torch.nn import functional
from typer.testing import CliRunner

from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.generators.starts import read_start
from sfumato_common.generators.stylegan2.augment import Adaptation, augment
from sfumato_common.generators.stylegan2.discriminator import Discriminator, spread_of
from sfumato_common.generators.stylegan2.generator import Generator, code_layers, noise_sides
from sfumato_common.generators.stylegan2.layers import halve, halve_last, smooth, smoothing
from sfumato_common.generators.stylegan2.networks import GENERATOR, discriminator, generator
from sfumato_common.generators.stylegan2.noise import draw_noise
from sfumato_common.generators.stylegan2.training import Recipe, Training, gradient_penalty
from sfumato_common.generators.weights import load_network
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.types import fingerprint
from sfumato_server.cli.main import app

FORM = {"channel_base": 512, "channel_max": 24, "mapping_layers": 3}


def plan_of(size: int = 32, channels: int = 1, **terms) -> Plan:
    value = small_plan(
        dp_sgd(kind="stylegan2", generator_steps=2, fakes=4, **{**FORM, **terms}),
        released="stylegan2",
        sites={"alder": 100},
    )
    value["image"] = {"size": size, "channels": channels}
    return parse(value, Plan, "test")


def seeded(seed: int = 0) -> TorchDraws:
    return TorchDraws(torch.Generator().manual_seed(seed))


class Published:
    """The published generator as its documentation describes it, slowly: every kernel is made for its own image.

    Styles multiply kernels; upsampling writes zeros between pixels and filters; gains stand where a layer runs.
    """

    def __init__(self, size: int, channels: int, classes: int, seed: int = 0) -> None:
        self.size, self.classes = size, classes
        rng = torch.Generator().manual_seed(seed)
        draw = lambda *shape: torch.randn(shape, generator=rng)  # noqa: E731
        self.state = {"mapping.w_avg": draw(512)}
        if classes:
            self.state |= {"mapping.embed.weight": draw(512, classes), "mapping.embed.bias": draw(512)}
        for index in range(FORM["mapping_layers"]):
            inputs = 1024 if classes and not index else 512
            self.state |= {f"mapping.fc{index}.weight": 100.0 * draw(512, inputs), f"mapping.fc{index}.bias": draw(512)}
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        before = 0
        for side in (2**level for level in range(2, size.bit_length())):
            width, block = min(FORM["channel_base"] // side, FORM["channel_max"]), f"synthesis.b{side}"
            self.state[f"{block}.resample_filter"] = torch.outer(taps, taps) / 64.0
            if side == 4:
                self.state[f"{block}.const"] = draw(width, 4, 4)
            layers = {"conv1": (width, width, 3), "torgb": (width, channels, 1)}
            if side > 4:
                layers["conv0"] = (before, width, 3)
            for name, (inputs, outputs, kernel) in layers.items():
                self.state |= {
                    f"{block}.{name}.weight": draw(outputs, inputs, kernel, kernel),
                    f"{block}.{name}.bias": draw(outputs),
                    f"{block}.{name}.affine.weight": draw(inputs, 512),
                    f"{block}.{name}.affine.bias": 1.0 + draw(inputs),
                }
                if kernel == 3:
                    self.state |= {
                        f"{block}.{name}.noise_strength": draw(1)[0],
                        f"{block}.{name}.noise_const": draw(side, side),
                        f"{block}.{name}.resample_filter": torch.outer(taps, taps) / 64.0,
                    }
            before = width

    def dense(self, name, x, rate=1.0):
        weight = self.state[f"{name}.weight"]
        return x @ (weight * rate / math.sqrt(weight.shape[1])).T + self.state[f"{name}.bias"] * rate

    def codes(self, z, given=None):
        unit = lambda x: x / (x.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()  # noqa: E731
        x = unit(z) if given is None else torch.cat([unit(z), unit(self.dense("mapping.embed", given))], dim=1)
        for index in range(FORM["mapping_layers"]):
            x = functional.leaky_relu(self.dense(f"mapping.fc{index}", x, 0.01), 0.2) * math.sqrt(2.0)
        return x

    def filtered(self, x, taps, before, after):
        padded = functional.pad(x, (before, after, before, after))
        kernel = taps.flip(0, 1)[None, None].expand(x.shape[1], 1, -1, -1)
        return functional.conv2d(padded, 4.0 * kernel, groups=x.shape[1])

    def conv(self, name, x, code, up, demodulated=True):
        weight = self.state[f"{name}.weight"]
        style = self.dense(f"{name}.affine", code)
        if not demodulated:
            style = style / math.sqrt(weight.shape[1])
        made = []
        for image, own in zip(x, style, strict=True):
            kernel = weight * own[None, :, None, None]
            if demodulated:
                kernel = kernel * (kernel.square().sum(dim=(1, 2, 3)) + 1e-8).rsqrt()[:, None, None, None]
            if up:
                wide = functional.conv_transpose2d(image[None], kernel.transpose(0, 1), stride=2)
                made.append(self.filtered(wide, self.state[f"{name}.resample_filter"], 1, 1))
            else:
                made.append(functional.conv2d(image[None], kernel, padding=kernel.shape[2] // 2))
        return torch.cat(made)

    def layer(self, name, x, code, up):
        x = self.conv(name, x, code, up)
        x = x + self.state[f"{name}.noise_const"] * self.state[f"{name}.noise_strength"]
        x = functional.leaky_relu(x + self.state[f"{name}.bias"][None, :, None, None], 0.2) * math.sqrt(2.0)
        return x.clamp(-256.0, 256.0)

    def images(self, codes):
        """Of codes [N, L, 512], with `noise_mode='const'`."""
        at, x, image = 0, None, None
        for side in (2**level for level in range(2, self.size.bit_length())):
            block = f"synthesis.b{side}"
            if side == 4:
                x = self.state[f"{block}.const"][None].repeat(len(codes), 1, 1, 1)
            else:
                x = self.layer(f"{block}.conv0", x, codes[:, at], up=True)
                at += 1
                spread = image.new_zeros(*image.shape[:2], 2 * image.shape[2], 2 * image.shape[3])
                spread[:, :, ::2, ::2] = image
                image = self.filtered(spread, self.state[f"{block}.resample_filter"], 2, 1)
            x = self.layer(f"{block}.conv1", x, codes[:, at], up=False)
            at += 1
            own = self.conv(f"{block}.torgb", x, codes[:, at], up=False, demodulated=False)
            own = own + self.state[f"{block}.torgb.bias"][None, :, None, None]
            image = own.clamp(-256.0, 256.0) if image is None else image + own.clamp(-256.0, 256.0)
        assert at + 1 == codes.shape[1]
        return image

    def noise(self):
        names = [("conv1",) if side == 4 else ("conv0", "conv1") for side in (4, 8, 16, 32)]
        return [
            self.state[f"synthesis.b{side}.{name}.noise_const"][None, None]
            for side, own in zip((4, 8, 16, 32), names, strict=True)
            for name in own
        ]


def imported(plan: Plan, oracle: Published) -> Generator:
    arrays = read_start(plan, plan.stage("stylegan2"), save(oracle.state))
    return load_network(GENERATOR, generator, plan, arrays)


@pytest.mark.parametrize("classes", [0, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_published_weights_draw_the_same_images(channels, classes):
    oracle = Published(32, channels, classes)
    network = imported(plan_of(channels=channels), oracle)
    z, given = seeded().normal((3, 512)), torch.eye(2)[[0, 1, 0]]
    codes = network.mapping(z, given)
    expected = oracle.codes(z, given if classes else None)
    assert torch.allclose(codes, expected, atol=1e-4 * float(expected.abs().max()))
    several = seeded(1).normal((3, code_layers(32), 512))
    for own in (network.broadcast(codes), several):
        images, wanted = network.synthesis(own, oracle.noise()), oracle.images(own)
        assert images.shape == wanted.shape == (3, channels, 32, 32)
        assert float((images - wanted).detach().abs().max()) < 1e-4 * float(wanted.detach().abs().max())


def test_published_weights_come_from_the_command_line_and_are_pinned_in_the_plan(tmp_path):
    plan, oracle = plan_of(), Published(32, 3, 0)
    files = [tmp_path / name for name in ("own.safetensors", "plan.json", "start.safetensors")]
    files[0].write_bytes(save(oracle.state))
    files[1].write_text(plan.model_dump_json())
    names = list(map(str, files))
    made = CliRunner().invoke(
        app, ["model", "import", names[0], "--plan", names[1], "--stage", "stylegan2", "-o", names[2]]
    )
    assert made.exit_code == 0, made.output
    expected = read_start(plan, plan.stage("stylegan2"), save(oracle.state))
    assert f"sha256: {fingerprint(expected)}" in made.output
    assert fingerprint(read_start(plan, plan.stage("stylegan2"), files[2].read_bytes())) == fingerprint(expected)


def test_a_generator_in_colour_draws_a_grey_plan_the_mean_of_its_channels():
    oracle = Published(32, 3, 0)
    codes = seeded().normal((2, code_layers(32), 512))
    grey = imported(plan_of(), oracle).synthesis(codes, oracle.noise())
    expected = oracle.images(codes).mean(dim=1, keepdim=True)
    assert float((grey - expected).detach().abs().max()) < 1e-4 * float(expected.abs().max())


def test_weights_of_another_form_or_filter_are_refused_and_told_apart():
    oracle = Published(32, 1, 0)
    for plan in (plan_of(16), plan_of(mapping_layers=2), plan_of(64)):
        with pytest.raises(VerificationError, match="of 32 pixels with 'mapping_layers: 3', 'channel_max: 24'"):
            read_start(plan, plan.stage("stylegan2"), save(oracle.state))
    wide = plan_of(channel_max=16)
    with pytest.raises(VerificationError, match="another form"):
        read_start(wide, wide.stage("stylegan2"), save(oracle.state))
    oracle.state["synthesis.b8.resample_filter"] = torch.ones(4, 4) / 16.0
    with pytest.raises(VerificationError, match="another resampling filter"):
        read_start(plan_of(), plan_of().stage("stylegan2"), save(oracle.state))


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256, 512])
def test_every_size_has_the_published_number_of_codes_and_noises(size):
    network, judge = Generator(size, 3, 2, 2048, 16, 1), Discriminator(size, 3, 2, 2048, 16, spread=False)
    with torch.no_grad():
        images = network(torch.zeros(1, 512), torch.eye(2)[:1], draw_noise(size, 1, seeded()))
        assert images.shape == (1, 3, size, size)
        assert judge(images, torch.eye(2)[:1]).shape == (1,)
    assert code_layers(size) == len(noise_sides(size)) + 1
    assert code_layers(size) == 2 * int(math.log2(size)) - 2


def test_an_image_does_not_depend_on_the_others_of_its_batch():
    network, draws = Generator(16, 1, 2, 128, 8, 2), seeded()
    z, given, noise = draws.normal((4, 512)), torch.eye(2)[[0, 1, 1, 0]], draw_noise(16, 4, draws)
    alone = network(z[1:2], given[1:2], [part[1:2] for part in noise])
    assert torch.allclose(network(z, given, noise)[1:2], alone, atol=1e-5)


def test_only_the_deviation_couples_records_and_a_private_plan_has_none():
    x, given = seeded().normal((4, 1, 16, 16)), torch.eye(2)[[0, 1, 1, 0]]
    for spread in (False, True):
        judge = Discriminator(16, 1, 2, 128, 8, spread=spread)
        together, alone = judge(x, given), torch.cat([judge(x[i : i + 1], given[i : i + 1]) for i in range(4)])
        assert torch.allclose(together, alone, atol=1e-5) is not spread
    couples = {}
    for private in (True, False):
        value = plan_of().model_dump()
        value["private"], value["stages"][0]["noise_multiplier"] = private, 0.001
        value["stages"][1] |= {"noise_multiplier": 0.001, "sites_train": "discriminator" if private else "both"}
        value["privacy"]["epsilon"] = 1e9
        couples[private] = discriminator(parse(value, Plan, "test")).conv.layer.in_channels
    assert couples[False] == couples[True] + 1


@pytest.mark.parametrize("count", [1, 3, 8, 10])
def test_the_deviation_is_that_of_groups_of_four_records_or_a_few_more(count):
    x = seeded().normal((count, 2, 4, 4)).requires_grad_()
    found, groups = spread_of(x), max(1, count // 4)
    assert found.shape == (count, 1, 4, 4)
    for index in range(groups):
        own = x[index::groups]
        expected = (own.var(dim=0, unbiased=False) + 1e-8).sqrt().mean()
        assert torch.allclose(found[index::groups], expected.expand(len(own), 1, 4, 4), atol=1e-5)
    (slope,) = torch.autograd.grad(found.sum(), x, create_graph=True)
    assert torch.isfinite(torch.autograd.grad(slope.square().sum(), x)[0]).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_augmentation_changes_images_with_its_probability_and_keeps_gradients(channels):
    x = seeded().normal((64, channels, 16, 16)).requires_grad_()
    assert augment(x, 0.0, seeded()) is x
    for probability in (0.05, 0.8):
        seen = augment(x, probability, seeded(1))
        assert seen.shape == x.shape and bool(seen.isfinite().all())
        changed = float(((seen - x).abs().amax(dim=(1, 2, 3)) > 1e-3).float().mean())
        kept = (1.0 - probability) ** (8 if channels == 1 else 9)
        assert abs(changed - (1.0 - kept)) < 0.2
    assert torch.autograd.grad(seen.sum(), x)[0].abs().sum() > 0


def test_the_probability_rises_while_real_images_are_told_surely_and_falls_otherwise():
    adaptation = Adaptation()
    for _ in range(10):
        adaptation.see(1.0, 1000)
    risen = adaptation.probability
    assert risen == pytest.approx(0.1)
    adaptation.see(0.0, 1000)
    assert 0.0 < adaptation.probability < risen
    for _ in range(1000):
        adaptation.see(1.0, 1000)
    assert adaptation.probability == 0.8


def test_the_penalty_is_the_squared_slope_of_each_record():
    weights = torch.tensor([2.0, 1.0])
    forward = lambda x, c: x.square().sum(dim=(1, 2, 3)) * (c @ weights)  # noqa: E731
    x, given = seeded().normal((3, 1, 4, 4)), torch.eye(2)[[0, 1, 0]]
    expected = (2.0 * x * (given @ weights)[:, None, None, None]).square().sum(dim=(1, 2, 3))
    assert torch.allclose(gradient_penalty(forward, x, given), expected)


def test_the_filter_spreads_a_point_as_1_3_3_1_in_both_directions():
    point = torch.zeros(2, 2, 9, 9)
    point[1, 0, 4, 4] = 64.0
    line, expected = torch.tensor([1.0, 3.0, 3.0, 1.0]), torch.zeros(2, 2, 8, 8)
    expected[1, 0, 2:6, 2:6] = line[:, None] * line
    for given in (point, point.to(memory_format=torch.channels_last), point.bfloat16()):
        assert torch.equal(smooth(given).float(), expected)


def test_kernels_that_are_smoothed_already_do_what_the_filter_does_after_them():
    x, weight = seeded().normal((2, 3, 8, 8)), seeded(1).normal((4, 3, 3, 3))
    expected = smooth(functional.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
    found = functional.conv_transpose2d(x, smoothing(weight).transpose(0, 1), stride=2, padding=2)
    assert found.shape == (2, 4, 16, 16) and torch.allclose(found, expected, atol=1e-5)


def test_means_with_channels_last_are_those_that_are_pooled():
    x = seeded().normal((2, 3, 8, 8))
    for given in (x, x.to(memory_format=torch.channels_last)):
        found = halve_last(given)
        assert torch.allclose(found, halve(x), atol=1e-6) and found.is_contiguous(memory_format=torch.channels_last)


def test_augmentation_of_a_probability_that_is_not_read_is_that_of_the_number():
    images = seeded().normal((6, 1, 16, 16))
    drawn = [augment(images, p, seeded(1)) for p in (0.4, torch.tensor(0.4))]
    assert torch.allclose(*drawn, atol=1e-6) and not torch.allclose(drawn[0], images, atol=1e-2)
    assert torch.allclose(augment(images, torch.tensor(0.0), seeded(1)), images, atol=1e-5)


@pytest.mark.parametrize("paths", [0.0, 2.0])
def test_training_moves_both_networks_and_the_average_follows(paths):
    torch.manual_seed(0)
    network, judge = Generator(16, 1, 2, 128, 8, 2), Discriminator(16, 1, 2, 128, 8, spread=True)
    before = [part.detach().clone() for part in (*network.parameters(), *judge.parameters())]
    training = Training(network, judge, Recipe(1e-3, 1.0, paths), seeded())
    given = torch.eye(2)[torch.arange(8) % 2]
    for _ in range(3):
        assert math.isfinite(training.step(seeded(2).normal((8, 1, 16, 16)).tanh(), given, given))
    after = [*network.parameters(), *judge.parameters()]
    assert all(not torch.equal(one, two) for one, two in zip(before, after, strict=True) if one.ndim)
    first = dict(zip([name for name, _ in network.named_parameters()], before, strict=False))
    apart = lambda one, two: sum(float((a - b).detach().square().sum()) for a, b in zip(one, two, strict=True))  # noqa: E731
    average = list(training.average.parameters())
    assert apart(average, first.values()) > 0.0 and apart(average, network.parameters()) > 0.0


def test_learning_rates_are_whole_until_the_last_share_and_fall_to_nothing():
    torch.manual_seed(0)
    network, judge = Generator(16, 1, 2, 128, 8, 2), Discriminator(16, 1, 2, 128, 8, spread=True)
    training, given = Training(network, judge, Recipe(1e-3, 0.0), seeded()), torch.eye(2)

    def moved(left: float) -> float:
        before = network.synthesis.b4.const.detach().clone()
        training.pace(left)
        training.step(seeded(2).normal((2, 1, 16, 16)).tanh(), given, given)
        return float((network.synthesis.b4.const.detach() - before).abs().max())

    assert moved(0.0) == 0.0
    assert moved(0.9) == pytest.approx(moved(0.4), rel=0.5) and 0.0 < moved(0.03) < 0.3 * moved(0.9)


@pytest.mark.parametrize(
    ("terms", "match"),
    [
        ({"sites_train": "both"}, "needs 'private: false'"),
        ({"augmentation": "adaptive"}, "follows real images without a charge"),
        ({"path_length": 1.0}, "'path_length' needs"),
        ({"channel_base": 128, "size": 64}, "less than 4 channels"),
        ({"size": 24}, "16, 32, 64, 128, 256, 512 pixels"),
    ],
)
def test_a_plan_says_what_its_privacy_allows(terms, match):
    with pytest.raises(ConfigError, match=match):
        plan_of(**terms)
