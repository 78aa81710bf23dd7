"""AutoencoderKL by its published layout: equal to diffusers 0.42.1, older names too, and refusals."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file

from sfumato_common.codec.autoencoder_kl import CONFIG, WEIGHTS, AutoencoderKL, AutoencoderKLConfig, read_autoencoder_kl
from sfumato_common.errors import ConfigError, VerificationError

STATED = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.42.1",
    "act_fn": "silu",
    "block_out_channels": [8, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 2,
    "latents_mean": None,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 32,
    "scaling_factor": 0.5,
    "shift_factor": 0.1,
}


def fixed_weights():
    """Sines of their places: the same here and in the library that the expected figures came from."""
    weights = AutoencoderKL(AutoencoderKLConfig.model_validate(STATED)).state_dict()
    for name, value in weights.items():
        sines = torch.sin(torch.arange(value.numel(), dtype=torch.float64) * 0.7 + len(name))
        offset = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        value.copy_((sines * (0.3 if value.ndim > 1 else 0.5) + offset).reshape(value.shape))
    return weights


def write(folder, weights, stated=STATED):
    (folder / CONFIG).write_text(json.dumps(stated))
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / WEIGHTS)
    return folder


def test_codes_and_images_are_those_of_diffusers(tmp_path):
    network = read_autoencoder_kl(write(tmp_path, fixed_weights()))
    image = torch.sin(torch.arange(3 * 64, dtype=torch.float64) * 0.1).float().reshape(1, 3, 8, 8)
    codes = network.encode(image)
    assert codes.shape == (1, network.numbers(8)) == (1, 32)
    # printed by diffusers 0.42.1 from the same weights: posterior mean less the shift, times the factor; and the sample
    expected = torch.tensor([-1.5660703, -1.7845733, -1.2240205, -0.4831504, 1.3127580, 2.0367072])
    assert (codes[0, :6] - expected).abs().max() < 1e-5
    drawn = network.decode(codes).flatten()[[0, 50, 100, 150, 191]]
    assert (drawn - torch.tensor([2.0525796, 2.9933732, 2.5579538, 1.2103673, -0.8233556])).abs().max() < 1e-5


def test_a_checkpoint_with_the_former_names_of_attention_is_the_same(tmp_path):
    weights = fixed_weights()
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    older = {}
    for name, value in weights.items():
        for new, old in former.items():
            if "attentions" in name and f".{new}." in name:
                name = name.replace(new, old)
                value = value[:, :, None, None] if value.ndim == 2 else value
        older[name] = value
    assert set(older) != set(weights)
    new, old = tmp_path / "new", tmp_path / "old"
    new.mkdir()
    old.mkdir()
    image = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    a, b = read_autoencoder_kl(write(new, weights)), read_autoencoder_kl(write(old, older))
    assert a.encode(image).equal(b.encode(image))


def test_grey_images_go_in_as_three_equal_channels_and_come_back_as_one(tmp_path):
    network = read_autoencoder_kl(write(tmp_path, fixed_weights()))
    grey = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    codes = network.encode(grey)
    assert codes.equal(network.encode(grey.expand(-1, 3, -1, -1)))
    assert network.decode(codes, 1).equal(network.decode(codes).mean(dim=1, keepdim=True))


def test_the_file_is_pinned_by_its_hash(tmp_path):
    write(tmp_path, fixed_weights())
    read_autoencoder_kl(tmp_path, hashlib.sha256((tmp_path / WEIGHTS).read_bytes()).hexdigest())
    with pytest.raises(VerificationError, match="pinned by its sha256"):
        read_autoencoder_kl(tmp_path, "0" * 64)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"_class_name": "AutoencoderTiny"}, "AutoencoderKL"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"] * 2}, "DownEncoderBlock2D"),
        ({"block_out_channels": [8, 16, 32]}, "as many"),
        ({"norm_num_groups": 3}, "must divide"),
    ],
)
def test_a_form_that_is_not_this_network_is_refused(tmp_path, change, said):
    write(tmp_path, fixed_weights(), {**STATED, **change})
    with pytest.raises(ConfigError, match=said):
        read_autoencoder_kl(tmp_path)


@pytest.mark.parametrize("fault", ["missing", "shape", "nan", "file", "none"])
def test_weights_that_are_not_of_the_form_are_refused(tmp_path, fault):
    weights = fixed_weights()
    if fault == "missing":
        del weights["quant_conv.bias"]
    elif fault == "shape":
        weights["quant_conv.bias"] = torch.zeros(3)
    elif fault == "nan":
        weights["quant_conv.bias"] = torch.full((4,), torch.nan)
    write(tmp_path, weights)
    if fault == "file":
        (tmp_path / WEIGHTS).write_bytes(b"no weights")
    elif fault == "none":
        (tmp_path / WEIGHTS).unlink()
    with pytest.raises((ConfigError, VerificationError)) as refused:
        read_autoencoder_kl(tmp_path)
    assert str(tmp_path) not in str(refused.value)
