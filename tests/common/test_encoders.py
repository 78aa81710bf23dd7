"""Given encoders: what is loaded is what the plan names, exactly; no file does anything but give tensors."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save
from support.encoders import default_terms, drawn, file_of, needs_default, terms_for, tiny_encoder
from support.plans import small_plan

from sfumato_common.encoders.encoder import Encoders, read_encoder
from sfumato_common.encoders.files import default_is_installed, find_encoder, read_weights
from sfumato_common.encoders.resnet import ResNet
from sfumato_common.encoders.settings import BUILT_IN, DEFAULT_ENCODER, LENGTHS, EncoderTerms
from sfumato_common.encoders.vgg import Vgg19Conv1
from sfumato_common.encoders.vit import SIZES, VisionTransformer
from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.metrics.features import encoded_features
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan

VGG = file_of(Vgg19Conv1())


def torch_file(value: object, **how) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, **how)
    return out.getvalue()


def vit(monkeypatch, **more: torch.Tensor) -> tuple[bytes, VisionTransformer]:
    """A ViT of two blocks with whatever tokens `more` has, and its file."""
    monkeypatch.setitem(SIZES, "vit-tiny", (192, 3, 2))
    shapes = {"patch_embed.proj.weight": torch.zeros(192, 3, 16, 16), "pos_embed": torch.zeros(1, 17, 192), **more}
    network = VisionTransformer("vit-tiny", shapes)
    weights = drawn(network)
    network.load_state_dict(weights)
    return bytes(save(weights)), network


@pytest.mark.parametrize("inside", [None, "model", "state_dict"])
@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files_of_both_forms_are_read_as_data(inside, legacy):
    weights = drawn(Vgg19Conv1())
    value = weights if inside is None else {inside: weights, "epoch": 3}
    found = read_weights(torch_file(value, _use_new_zipfile_serialization=not legacy))
    assert all(torch.equal(found[name], value) for name, value in weights.items())


class Code:
    def __reduce__(self):
        return exec, ("import pathlib; pathlib.Path('executed').touch()",)


def safetensors_of(header: dict, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def packed() -> bytes:
    """A torch file whose storage of zeros is deflated."""
    source, out = zipfile.ZipFile(io.BytesIO(torch_file({"a": torch.zeros(2**20)}))), io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in source.infolist():
            archive.writestr(entry.filename, source.read(entry))
    return out.getvalue()


def storage_beyond(legacy: bool) -> bytes:
    """A torch file that says of its 100,000 numbers that they are 2,000,000,000."""
    data = torch_file({"a": torch.zeros(100_000)}, _use_new_zipfile_serialization=not legacy)
    said, claimed = (b"J" + struct.pack("<i", count) for count in (100_000, 2_000_000_000))
    assert said in data
    return data.replace(said, claimed)


HOSTILE = {
    "nothing": b"",
    "noise": bytes(range(256)) * 8,
    "code in a pickle": pickle.dumps({"a": Code()}, protocol=2),
    "code in a torch file": torch_file({"a": torch.zeros(1), "b": Code()}),
    "code in a legacy torch file": torch_file({"b": Code()}, _use_new_zipfile_serialization=False),
    "truncated safetensors": VGG[: len(VGG) // 2],
    "a header cut": VGG[:20],
    "a header as long as the world": struct.pack("<Q", 2**60) + b"{}",
    "tensors beyond the file": safetensors_of({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
    "truncated torch file": torch_file(drawn(Vgg19Conv1()))[:-2000],
    "one number seen as many": torch_file({"a": torch.zeros(1).expand(2**40)}),
    "packed zeros": packed(),
    "a storage beyond the file": storage_beyond(legacy=False),
    "a storage beyond the legacy file": storage_beyond(legacy=True),
    "a sparse tensor": torch_file({"a": torch.eye(3).to_sparse()}),
    "no tensors": torch_file({"a": 1}),
    "a list": torch_file([torch.zeros(2)]),
    "no names": torch_file({1: torch.zeros(2)}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_with_one_error_and_nothing_is_executed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VerificationError, match="no safetensors file and no torch file"):
        read_weights(HOSTILE[name])
    assert not list(tmp_path.iterdir())


def misfits() -> dict[str, tuple[bytes, str]]:
    weights = drawn(Vgg19Conv1())
    bias = "features.0.bias"
    less = {name: value for name, value in weights.items() if name != bias}
    return {
        "missing": (save(less), "1 weights are missing, the first is 'features.0.bias'"),
        "unexpected": (save({**weights, "door": torch.zeros(1)}), "1 weights have no place"),
        "shape": (save({**weights, bias: torch.zeros(65)}), "another shape"),
        "endless": (save({**weights, bias: torch.full((64,), torch.inf)}), "no training leads to"),
        "not a number": (save({**weights, bias: torch.full((64,), torch.nan)}), "no training leads to"),
        "integers": (save({**weights, bias: torch.zeros(64, dtype=torch.int64)}), "no training leads to"),
    }


@pytest.mark.parametrize("name", misfits())
def test_weights_that_do_not_fit_are_one_clear_error(name):
    data, words = misfits()[name]
    with pytest.raises(VerificationError, match=words):
        read_encoder(terms_for(data, "vgg19-conv1"), data)


def test_a_file_of_another_architecture_and_one_with_impossible_shapes_are_refused():
    for architecture in LENGTHS:
        if architecture != "vgg19-conv1":
            with pytest.raises(VerificationError, match=f"no '{architecture}'"):
                read_encoder(terms_for(VGG, architecture), VGG)
    for patch, positions in ((16, 7), (0, 17), (16, 0)):
        weights = {"patch_embed.proj.weight": torch.zeros(192, 3, patch, patch)}
        data = save({**weights, "pos_embed": torch.zeros(1, positions, 192)})
        with pytest.raises(VerificationError, match="no 'vit-tiny'"):
            read_encoder(terms_for(data, "vit-tiny"), data)


def test_half_precision_and_classifiers_beside_the_encoder_are_taken():
    weights = {name: value.half() for name, value in drawn(Vgg19Conv1()).items()}
    data = save({**weights, "features.5.weight": torch.zeros(2), "classifier.0.bias": torch.zeros(2)})
    encoder = read_encoder(terms_for(data, "vgg19-conv1"), data)
    images = torch.rand(2, 1, 20, 20) * 2 - 1
    found = encoder(images)
    assert found.shape == (2, 64, 20, 20)
    assert found.dtype == torch.float32
    grey = (images.expand(-1, 3, -1, -1) + 1) / 2
    mean, deviation = (torch.tensor(BUILT_IN[DEFAULT_ENCODER].model_dump()[key]) for key in ("mean", "deviation"))
    network = Vgg19Conv1()
    network.load_state_dict({name: value.float() for name, value in weights.items()})
    wanted = network((grey - mean[:, None, None]) / deviation[:, None, None])
    assert torch.allclose(found, wanted, atol=1e-6)


def test_a_resnet_is_torchvisions_on_paper():
    """A black box by hand: stem, two stages' worth of stride, batch norm as an affine map."""
    data = file_of(ResNet("resnet18"))
    encoder = read_encoder(terms_for(data, "resnet18", size=32), data)
    network = ResNet("resnet18")
    network.load_state_dict(read_weights(data))
    network.train()  # fixed moments have no mode
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    together = encoder(images)
    assert together.shape == (3, 512)
    assert torch.allclose(together, network(encoder.prepare(images)), atol=1e-5)
    alone = torch.cat([encoder(image[None]) for image in images])
    assert torch.allclose(together, alone, atol=1e-5)
    names = set(network.state_dict())
    assert {"conv1.weight", "bn1.running_var", "layer2.0.downsample.0.weight", "layer4.1.bn2.bias"} <= names
    assert {"layer3.5.conv3.weight", "layer1.0.downsample.1.running_mean"} <= set(ResNet("resnet50").state_dict())


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"blocks.0.ls1.gamma": torch.zeros(192)},
        {"register_tokens": torch.zeros(1, 4, 192), "blocks.0.ls1.gamma": torch.zeros(192)},
        {"reg_token": torch.zeros(1, 4, 192), "pos_embed": torch.zeros(1, 16, 192)},
        {"fc_norm.weight": torch.zeros(192)},
    ],
    ids=["timm", "DINOv2", "registers", "timm's registers", "RETFound"],
)
def test_vision_transformers_are_read_off_their_names(monkeypatch, more):
    data, network = vit(monkeypatch, **more)
    encoder = read_encoder(terms_for(data, "vit-tiny", size=64), data)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    found = encoder(images)
    assert found.shape == (2, 192)
    assert torch.allclose(found, network(encoder.prepare(images)), atol=1e-6)
    larger = read_encoder(terms_for(data, "vit-tiny", size=96), data)  # positions are resampled to 6 x 6
    assert bool(larger(images).isfinite().all())
    with pytest.raises(VerificationError, match="makes nothing of images of 16"):
        read_encoder(terms_for(_with_patch(data, 32), "vit-tiny", size=16), _with_patch(data, 32))


def _with_patch(data: bytes, side: int) -> bytes:
    return save({**read_weights(data), "patch_embed.proj.weight": torch.zeros(192, 3, side, side)})


def test_a_block_left_out_is_missed(monkeypatch):
    data, _ = vit(monkeypatch)
    monkeypatch.setitem(SIZES, "vit-tiny", (192, 3, 3))
    with pytest.raises(VerificationError, match=r"missing, the first is 'blocks\.2\."):
        read_encoder(terms_for(data, "vit-tiny", size=64), data)


def test_a_file_is_found_by_name_and_held_against_its_hash(tmp_path):
    terms = terms_for(VGG, "vgg19-conv1")
    with pytest.raises(VerificationError, match="not in the folder of encoders"):
        find_encoder(tmp_path, terms)
    (tmp_path / terms.file).write_bytes(VGG)
    assert find_encoder(tmp_path, terms) == VGG
    assert Encoders(tmp_path, {"style": terms}).load("style").length == 64
    (tmp_path / terms.file).write_bytes(VGG[:-1] + b"\x01")
    with pytest.raises(VerificationError, match="another sha256") as caught:
        find_encoder(tmp_path, terms)
    assert str(tmp_path) not in str(caught.value)


def test_a_file_beyond_any_network_is_not_even_read(tmp_path, monkeypatch):
    terms = terms_for(VGG, "vgg19-conv1")
    (tmp_path / terms.file).write_bytes(VGG)
    monkeypatch.setattr("sfumato_common.encoders.files.LARGEST_FILE", len(VGG) - 1)
    with pytest.raises(VerificationError, match="more than"):
        find_encoder(tmp_path, terms)


@pytest.mark.parametrize("file", ["../net", "a/b", "/net", ".net", "", "a\\b"])
def test_a_plans_file_is_a_name_and_no_path(file):
    with pytest.raises(ValueError, match="file"):
        terms_for(VGG, "vgg19-conv1", file=file)


def plan_of(encoders: dict | None = None, **stage) -> Plan:
    embedding = {"kind": "embedding", "noise_multiplier": 1.0, "width": 8, **stage}
    value = small_plan(embedding, released="embedding", sites={"alder": 100})
    return parse({**value, **({} if encoders is None else {"encoders": encoders})}, Plan, "test")


def test_plans_without_an_encoder_keep_their_digest_and_others_have_their_own():
    plain, given = plan_of(), plan_of(encoder=DEFAULT_ENCODER)
    assert "encoder" not in json.dumps(plain.model_dump(mode="json"))
    assert plain.digest != given.digest
    described = plan_of({"eyes": default_terms(32)}, encoder="eyes")
    assert described.digest != plan_of({"eyes": default_terms(64)}, encoder="eyes").digest
    assert parse(json.loads(json.dumps(described.model_dump(mode="json"))), Plan, "again") == described
    assert (plain.encoders, list(described.encoders)) == ({}, ["eyes"])
    # a built-in one is pinned like any other
    assert given.encoders == {DEFAULT_ENCODER: BUILT_IN[DEFAULT_ENCODER]}
    assert parse(json.loads(json.dumps(given.model_dump(mode="json"))), Plan, "again").digest == given.digest


@pytest.mark.parametrize(
    ("encoders", "encoder", "words"),
    [
        (None, "eyes", "there is no encoder 'eyes'"),
        ({"eyes": default_terms(32)}, None, "named by no stage"),
        ({DEFAULT_ENCODER: default_terms(32)}, DEFAULT_ENCODER, "built in"),
        ({"eyes": {**default_terms(32), "architecture": "vgg19-conv1"}}, "eyes", "does not fit"),
        ({"eyes": {**default_terms(32), "architecture": "alexnet"}}, "eyes", "architecture"),
        ({"eyes": {**default_terms(32), "sha256": "0"}}, "eyes", "sha256"),
        ({"eyes": {**default_terms(32), "deviation": [0.0, 1.0, 1.0]}}, "eyes", "deviation"),
    ],
)
def test_a_plan_describes_every_encoder_that_it_names_and_no_other(encoders, encoder, words):
    with pytest.raises(ConfigError, match=words):
        plan_of(encoders, **({} if encoder is None else {"encoder": encoder}))


def test_features_of_integer_images_are_the_encoders_in_grey_and_colour():
    encoder, rng = tiny_encoder(), np.random.default_rng(0)
    for shape in ((20, 16, 16), (20, 16, 16, 3)):
        images = rng.integers(0, 256, shape).astype(np.uint8)
        found = encoded_features(images, encoder)
        assert found.shape == (20, 512)
        planes = torch.from_numpy(images.reshape(20, 16, 16, -1)).permute(0, 3, 1, 2) / 127.5 - 1.0
        assert np.allclose(found, encoder(planes).numpy(), atol=1e-5)


@needs_default
def test_the_default_encoder_is_installed_and_sees_photographs(tmp_path):
    """Bell cote or palace, and daisy: what ImageNet's classes say of two photographs that scikit-learn brings."""
    from sklearn.datasets import load_sample_images

    terms = BUILT_IN[DEFAULT_ENCODER]
    encoder = Encoders(tmp_path, BUILT_IN).load(DEFAULT_ENCODER)
    weights = read_weights(find_encoder(tmp_path, terms))
    seen = []
    for photograph in load_sample_images().images:
        side = min(photograph.shape[:2])
        top, left = ((length - side) // 2 for length in photograph.shape[:2])
        square = torch.tensor(photograph[top : top + side, left : left + side]).permute(2, 0, 1)[None] / 127.5 - 1.0
        embedded = encoder(square)
        assert embedded.shape == (1, terms.length)
        seen.append(int((embedded @ weights["_fc.weight"].T + weights["_fc.bias"]).argmax()))
    assert seen[0] in (442, 698)
    assert seen[1] == 985


def test_without_the_package_the_default_is_a_file_like_any_other(tmp_path, monkeypatch):
    monkeypatch.setattr("sfumato_common.encoders.files.find_spec", lambda name: None)
    assert not default_is_installed()
    with pytest.raises(VerificationError, match="efficientnet-lite0-57934424"):
        Encoders(tmp_path, BUILT_IN).load(DEFAULT_ENCODER)


def test_every_architecture_has_a_length_and_a_record_takes_it():
    for architecture, length in LENGTHS.items():
        terms: EncoderTerms = terms_for(b"", architecture)
        assert (terms.length, terms.is_map) == (length, architecture == "vgg19-conv1")
