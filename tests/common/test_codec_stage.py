"""The codec stage: pinned by hash, refused otherwise, and its images have what the network draws."""

import copy

import numpy as np
import pytest
import torch

from sfumato_client.dataset.cohort import Cohort
from sfumato_client.site.inbound import Seen
from sfumato_client.training import StageJob, train
from sfumato_common.codec.folder import WEIGHTS, weights_of, write_codec
from sfumato_common.codec.form import CodecConfig, CodecForm, LossWeights, Report, Score, Source
from sfumato_common.codec.training import Budget, train_codec
from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.generators.codec.layout import CodecLayout
from sfumato_common.generators.codec.space import features_of
from sfumato_common.generators.sampling import sample_images
from sfumato_common.generators.starts import start_key
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.phantom import arrays as phantom
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.starts import keep_start
from sfumato_common.types import fingerprint
from sfumato_server.rounds.starts import load_starts
from sfumato_server.rounds.strategies import strategy_of

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
FORM = {"size": 32, "cosines": 64, "kept": 24, "width": 8, "encoder_blocks": 1, "decoder_blocks": 2}


@pytest.fixture(scope="module")
def cohort():
    return Cohort(*phantom(3, 60, 32))


@pytest.fixture(scope="module")
def codec():
    """A codec that learned a little from other phantom patients."""
    images = torch.from_numpy(phantom(9, 24, 32)[0])[:, None]
    losses = LossWeights(noise=0.0)
    return train_codec(CodecForm(**FORM), losses, images, Budget(steps=120, batch=16), 0).codec


def values(codec):
    return {
        "study": "codec",
        "image": {"size": 32, "channels": 1},
        "labels": ["normal", "opacity"],
        "sites": {"alder": {"nominal_patients": 60}},
        "privacy": {"epsilon": 1000.0, "delta": 1.0e-5},
        "stages": [
            {
                "kind": "codec",
                "noise_multiplier": 0.02,
                "form": FORM,
                "start": {"source": "phantom", "sha256": fingerprint(weights_of(codec))},
            }
        ],
        "release": [{"model": "codec", "images": 4}],
        "federation": {"quorum": 1},
    }


@pytest.fixture(scope="module")
def plan(codec):
    return parse(values(codec), Plan, "plan")


@pytest.fixture(scope="module")
def released(plan, codec, cohort):
    """One round: what the site was sent, and the model after it."""
    strategy = strategy_of(plan, plan.stage("codec"), {start_key("codec"): weights_of(codec)})
    sent, noise = strategy.outbound(1, "alder"), TestNoise(0)
    job = StageJob(plan, "alder", plan.stage("codec"), 1, sent, cohort, noise, NoiseRecorder(noise, "entry"))
    strategy.absorb(1, {"alder": dict(train(job))}, torch.Generator().manual_seed(0))
    return sent, strategy.released()


def test_the_network_that_travels_is_the_one_that_the_plan_pins(plan, codec, released):
    sent, model = released
    assert fingerprint(sent) == plan.stage("codec").start.sha256
    assert {name: model[name] for name in sent}.keys() == sent.keys()
    with pytest.raises(VerificationError, match="not the public start that the plan pins"):
        strategy_of(plan, plan.stage("codec"), {})
    other = {name: value + np.float32(0.5) for name, value in weights_of(codec).items()}
    with pytest.raises(VerificationError, match="not the public start that the plan pins"):
        strategy_of(plan, plan.stage("codec"), {start_key("codec"): other})


def test_a_site_refuses_any_other_network_in_training_and_in_the_release(plan, released, tmp_path):
    sent, model = released
    changed = {**sent, "autoencoder/decoder.leave.bias": sent["autoencoder/decoder.leave.bias"] + np.float32(0.01)}
    with pytest.raises(VerificationError, match="not the public start"):
        Seen(tmp_path / "one", plan).check_round(plan.stage("codec"), 1, changed)
    seen = Seen(tmp_path / "two", plan)
    seen.check_round(plan.stage("codec"), 1, sent)
    seen.keep_round(plan.stage("codec"), 1, sent)
    seen.check_release({"codec": model})
    with pytest.raises(VerificationError, match="not where the plan's training could have led"):
        seen.check_release({"codec": {**model, **changed}})
    far = {**model, "codec/mean": model["codec/mean"] + np.float32(100.0)}
    with pytest.raises(VerificationError, match="honest fit"):
        Seen(tmp_path / "three", plan)._check_fixed(far)


def test_the_file_of_a_codec_is_a_start_as_it_is(plan, codec, tmp_path):
    score = Score(psnr=1.0, fine=1.0, energy=1.0)
    report = Report(steps=1, seconds=1.0, device="cpu", held_out_images=1, codec=score, cosines=score)
    config = CodecConfig(
        form=codec.form,
        losses=LossWeights(),
        sources=[Source(name="phantom", images=1, patients=1)],
        licence="nobody's",
        report=report,
        weights_sha256=plan.stage("codec").start.sha256,
    )
    write_codec(tmp_path / "codec", codec, config)
    assert keep_start(tmp_path / "starts", plan, (tmp_path / "codec" / WEIGHTS).read_bytes()) == "codec"
    kept = load_starts(tmp_path / "starts", plan)[start_key("codec")]
    assert fingerprint(kept) == config.weights_sha256


def test_images_are_of_the_cohort_and_finer_than_its_cosines(plan, released, cohort):
    _, model = released
    bare = {name: np.zeros_like(v) if name.startswith("autoencoder") else v for name, v in model.items()}
    components = np.arange(40) % 2

    def drawn(arrays):
        draws = TorchDraws(torch.Generator().manual_seed(1))
        return sample_images(plan, "codec", arrays, components, draws).astype(np.float64)

    def energy(images):
        return (np.diff(images, axis=1) ** 2).mean() + (np.diff(images, axis=2) ** 2).mean()

    images, real = drawn(model), cohort.everything()[0].astype(np.float64)
    assert abs(images.mean() - real.mean()) < 12.0
    assert energy(drawn(bare)) < energy(images) < 1.2 * energy(real)


def test_no_feature_hangs_on_another_image(plan, codec, cohort):
    layout, images = CodecLayout.of(plan), cohort.everything()[0]
    features = features_of(layout, codec, images)
    assert features.shape == (len(images), layout.features)
    for rows in ([3], [40, 3], [*range(30, 50), 3]):
        assert np.array_equal(features_of(layout, codec, images[rows]), features[rows])
    assert features_of(layout, codec, images[:0]).shape == (0, layout.features)
    assert layout.prior.sum() == pytest.approx(1.0)


def test_a_network_cannot_tell_how_many_images_there_are(plan, codec, cohort, monkeypatch):
    """Kernels are chosen by a batch's shape, and a chaotic network makes much of their last bits."""
    layout, images, encode = CodecLayout.of(plan), cohort.everything()[0], codec.encode
    monkeypatch.setattr(codec, "encode", lambda x: encode(x) + len(x))
    features = features_of(layout, codec, images)
    assert np.array_equal(features_of(layout, codec, images[:1]), features[:1])
    assert np.array_equal(features_of(layout, codec, np.tile(images, (4, 1, 1)))[: len(images)], features)


def test_a_code_that_is_not_finite_counts_as_nothing(plan, codec, cohort):
    broken = copy.deepcopy(codec)
    broken.encoder.leave.bias.fill_(torch.inf)
    features = features_of(CodecLayout.of(plan), broken, cohort.everything()[0][:3])
    assert not features.any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"form": {**FORM, "size": 64}}, "another size"),
        ({"form": {**FORM, "kept": 64}}, "'kept' must be less"),
        ({"by_site": True}, "by_site"),
        ({"start": {"source": "phantom", "sha256": "x"}}, "sha256"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(codec, change, said):
    value = copy.deepcopy(values(codec))
    value["stages"][0].update(change)
    if "by_site" in change:
        value["stages"].insert(0, {"kind": "spectral", "bandwidth": 4, "clip_radius": 2.0, "noise_multiplier": 1.0})
    with pytest.raises(ConfigError, match=said):
        parse(value, Plan, "plan")
