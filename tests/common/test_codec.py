"""The codec: kept cosines pass exactly, nothing couples images, training learns, files are what they say."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from sfumato_common.codec.folder import CONFIG, WEIGHTS, build_codec, read_codec, weights_of, write_codec
from sfumato_common.codec.form import CodecConfig, CodecForm, LossWeights, Report, Score, Source
from sfumato_common.codec.losses import RandomFeatures, energy_loss, gradient_loss, pixel_loss
from sfumato_common.codec.network import Codec, lowest
from sfumato_common.codec.training import Budget, rounded, train_codec
from sfumato_common.codec.views import views
from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.metrics.reconstruction import reconstruction_scores
from sfumato_common.phantom import arrays
from sfumato_common.types import fingerprint

FORM = CodecForm(size=32, cosines=64, kept=24, width=8, encoder_blocks=1, decoder_blocks=2)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images():
    return arrays(3, 24, 32)[0]


@pytest.fixture(scope="module")
def floats(images):
    return torch.from_numpy(images)[:, None].float() / 127.5 - 1.0


@pytest.fixture
def moved():
    """A codec whose last layers are no longer zero."""
    codec = Codec(FORM, rng())
    with torch.no_grad():
        for parameter in codec.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=rng(1))
    return rounded(codec)


@pytest.fixture
def folder(moved, tmp_path):
    score = Score(psnr=30.0, fine=0.8, energy=0.5)
    report = Report(steps=1, seconds=1.0, device="cpu", held_out_images=2, codec=score, cosines=score)
    codec = build_codec(FORM, weights_of(moved))
    config = CodecConfig(
        form=FORM,
        losses=LossWeights(),
        sources=[Source(name="phantom", images=20, patients=20)],
        licence="nobody's",
        report=report,
        weights_sha256=fingerprint(weights_of(codec)),
    )
    write_codec(tmp_path / "codec", codec, config)
    return tmp_path / "codec"


def test_before_any_training_a_codec_is_the_cosines_of_least_frequency(floats):
    codec = Codec(FORM, rng()).requires_grad_(False)
    made = codec.decode(codec.encode(floats))
    matrix = np.array([[np.cos(np.pi * (2 * x + 1) * k / 64) for x in range(32)] for k in range(32)]) / 4.0
    matrix[0] /= np.sqrt(2.0)
    block = matrix @ floats[:, 0].double().numpy() @ matrix.T
    radius = np.hypot(*np.indices((32, 32)))
    assert np.sort(radius.ravel())[63] < np.sort(radius.ravel())[64]  # no tie at this number
    expected = matrix.T @ np.where(radius <= np.sort(radius.ravel())[63], block, 0.0) @ matrix
    assert np.abs(made[:, 0].numpy() - expected).max() < 1e-5


def test_kept_cosines_pass_exactly_and_the_others_carry_something_else(moved, floats):
    given, back = moved.coefficients(floats), moved.coefficients(moved.decode(moved.encode(floats)))
    codes = moved.encode(floats)[:, None]
    assert (given - codes)[..., : FORM.kept].abs().max() == 0.0
    assert (given - back)[..., : FORM.kept].abs().max() < 1e-4
    assert (given - codes)[..., FORM.kept :].abs().max() > 0.1
    assert (given - back)[..., FORM.kept :].abs().max() > 0.1


def test_no_image_hangs_on_another(moved, floats):
    codes = moved.encode(floats)
    assert (moved.encode(floats[3:4]) - codes[3:4]).abs().max() < 1e-4
    assert (moved.decode(codes[3:4]) - moved.decode(codes)[3:4]).abs().max() < 1e-4


def test_images_are_differentiable_in_codes(moved, floats):
    codes = moved.encode(floats[:2]).requires_grad_(True)
    moved.decode(codes).square().sum().backward()
    assert (codes.grad.abs() > 0).all()


def test_colour_has_as_many_numbers_a_channel():
    form = FORM.model_copy(update={"channels": 3})
    codec = Codec(form, rng()).requires_grad_(False)
    image = torch.rand(2, 3, 32, 32, generator=rng())
    assert codec.encode(image).shape == (2, form.numbers) == (2, 192)
    assert codec.decode(codec.encode(image)).shape == image.shape


def test_lowest_frequencies_come_in_order():
    down, across = lowest(16, 100)
    radius = down**2 + across**2
    assert (np.diff(radius) >= 0).all()
    assert (down[0], across[0]) == (0, 0)
    assert len({*zip(down.tolist(), across.tolist(), strict=True)}) == 100


@pytest.mark.parametrize("change", [{"cosines": 300}, {"kept": 64}, {"size": 30}])
def test_a_form_that_cannot_be_is_refused(change):
    with pytest.raises(ValueError, match=r"must|more than"):
        CodecForm(**{**FORM.model_dump(), **change})


def test_training_beats_as_many_cosines_on_what_it_learned_from(images, floats):
    pixels = torch.from_numpy(images)[:, None]
    trained = train_codec(FORM, LossWeights(noise=0.0), pixels, Budget(steps=150, batch=16), 0)
    assert trained.steps == 150
    plain = Codec(FORM, rng())
    before = reconstruction_scores(images, plain.decode(plain.encode(floats)).detach().numpy())
    after = reconstruction_scores(images, trained.codec.decode(trained.codec.encode(floats)).numpy())
    assert after.psnr > before.psnr + 0.1
    assert after.fine > before.fine
    assert after.energy > before.energy


@pytest.mark.parametrize("loss", ["gradient", "feature", "energy", "adversarial"])
def test_each_loss_can_be_switched_on_and_steps_are_reproducible(images, loss):
    pixels = torch.from_numpy(images)[:, None]

    def weights(**losses):
        trained = train_codec(FORM, LossWeights(**losses), pixels, Budget(steps=4, batch=8), 0)
        return fingerprint(weights_of(trained.codec))

    assert weights(**{loss: 0.5}) == weights(**{loss: 0.5}) != weights()


def test_a_training_goes_on_from_a_codec_and_leaves_it_alone(images, moved):
    before = fingerprint(weights_of(moved))
    pixels = torch.from_numpy(images)[:, None]
    trained = train_codec(FORM, LossWeights(), pixels, Budget(steps=2, batch=8), 0, start=moved)
    gaps = [
        np.abs(a - b).max() for a, b in zip(weights_of(trained.codec).values(), weights_of(moved).values(), strict=True)
    ]
    assert fingerprint(weights_of(moved)) == before
    assert 0.0 < max(gaps) < 0.01


def test_a_training_ends_when_its_seconds_are_over(images):
    told = []
    trained = train_codec(
        FORM, LossWeights(), torch.from_numpy(images)[:, None], Budget(seconds=1.5, batch=4), 0, told.append
    )
    assert 1.5 <= trained.seconds < 5.0
    assert told[-1].progress == 1.0


def test_views_are_images_of_the_same_form(images):
    pixels = torch.from_numpy(images)[:, None]
    seen = views(pixels, torch.arange(20), rng())
    assert seen.shape == (20, 1, 32, 32)
    assert seen.min() >= -1.0 and seen.max() <= 1.0
    assert len({float(image.mean()) for image in seen}) == 20


def test_losses_are_nothing_for_equal_images_and_energy_prefers_the_right_amount_of_texture(floats):
    real = floats
    smooth = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(real, [1] * 4, mode="reflect"), 3, 1)
    noise = torch.randn(real.shape, generator=rng())
    spread = (real - smooth).std(dim=(1, 2, 3), keepdim=True)
    textured = smooth + spread * noise
    features = RandomFeatures(1, rng())
    for loss in (pixel_loss, gradient_loss, energy_loss, features):
        assert float(loss(real, real)) == 0.0
        assert float(loss(smooth, real)) > 0.0
    assert energy_loss(textured, real) < energy_loss(smooth, real)
    assert pixel_loss(textured, real) > pixel_loss(smooth, real)


def test_a_folder_gives_back_the_very_codec(folder, moved, floats):
    codec, config = read_codec(folder)
    stated = json.loads((folder / CONFIG).read_text())["weights_sha256"]
    assert config.weights_sha256 == stated == fingerprint(weights_of(codec))
    assert read_codec(folder, stated)[0].encode(floats).equal(codec.encode(floats))
    assert not any(parameter.requires_grad for parameter in codec.parameters())
    assert codec.encode(floats).equal(moved.encode(floats))


def test_a_codec_that_is_not_the_pinned_one_is_refused(folder):
    with pytest.raises(VerificationError, match="not the one that the plan pins"):
        read_codec(folder, "0" * 64)


def test_weights_that_are_not_those_of_the_configuration_are_refused(folder):
    weights = load_file(folder / WEIGHTS)
    weights["autoencoder/encoder.leave.bias"] = weights["autoencoder/encoder.leave.bias"] + np.float16(1.0)
    save_file(weights, folder / WEIGHTS)
    with pytest.raises(VerificationError, match=r"not those of 'config\.json'"):
        read_codec(folder)


@pytest.mark.parametrize("fault", ["name", "shape", "nan", "huge", "dtype"])
def test_weights_of_another_form_are_refused(moved, fault):
    weights = weights_of(moved)
    name = "autoencoder/decoder.leave.bias"
    changed = {
        "name": None,
        "shape": weights[name][:-1],
        "nan": np.full_like(weights[name], np.nan),
        "huge": np.full_like(weights[name], 6e4),
        "dtype": weights[name].astype(np.float64),
    }[fault]
    if changed is None:
        del weights[name]
    else:
        weights[name] = changed
    with pytest.raises(VerificationError):
        build_codec(FORM, weights)


@pytest.mark.parametrize("broken", ["missing", "json", "safetensors", "key"])
def test_a_folder_that_is_no_codec_says_so_without_a_path(folder, broken):
    if broken == "missing":
        (folder / WEIGHTS).unlink()
    elif broken == "json":
        (folder / CONFIG).write_text("{")
    elif broken == "key":
        (folder / CONFIG).write_text(json.dumps({**json.loads((folder / CONFIG).read_text()), "mean": 1}))
    else:
        (folder / WEIGHTS).write_bytes(b"no weights")
    with pytest.raises((ConfigError, VerificationError)) as refused:
        read_codec(folder)
    assert str(folder) not in str(refused.value)


def test_scores_of_the_image_itself_of_smoothing_and_of_noise(images, floats):
    real = floats.numpy()
    perfect = reconstruction_scores(images, real)
    assert perfect.psnr > 100.0
    assert (round(perfect.fine, 5), round(perfect.energy, 5)) == (1.0, 1.0)
    noisy = reconstruction_scores(images, real + 0.1 * np.random.default_rng(0).standard_normal(real.shape))
    assert abs(noisy.psnr - 26.0) < 0.8  # 20 log10(2 / 0.1); cut to the range, a little less noise
    assert noisy.energy > 1.0 > noisy.fine
    flat = reconstruction_scores(images, np.zeros_like(real))
    assert flat.energy == 0.0
