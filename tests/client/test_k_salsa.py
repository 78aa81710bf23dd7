"""k-SALSA: the style loss against its definition, the embedding against chance, and what the method promises."""

from __future__ import annotations

import dataclasses
import importlib
import stat

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from support.encoders import file_of, terms_for, tiny_encoder
from support.plans import dp_sgd
from torch.nn import functional

from sfumato_client.anonymise import self_supervised
from sfumato_client.anonymise.contract import Job, Release
from sfumato_client.anonymise.given_net import GivenNet, net_of
from sfumato_client.anonymise.groups import groups_of
from sfumato_client.anonymise.influence import noise_of
from sfumato_client.anonymise.inversion import inverter_of, space_of
from sfumato_client.anonymise.k_salsa import align, align_groups, k_salsa, losses, ramp, targets_of
from sfumato_client.anonymise.patients import encode_patients, patients_of
from sfumato_client.anonymise.self_supervised import ContrastiveNet, embedding_of, nt_xent, train, view
from sfumato_client.anonymise.style import patch_grams, style_loss
from sfumato_client.anonymise.style_net import encode_style_net, read_style_net
from sfumato_client.dataset import Cohort
from sfumato_common.encoders.encoder import read_encoder
from sfumato_common.encoders.vgg import Vgg19Conv1
from sfumato_common.errors import DataError, VerificationError
from sfumato_common.generators.gan.w_space import Noise
from sfumato_common.generators.spectral.dct import dct_matrix, public_scale
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.starts import initial_model
from sfumato_common.generators.weights import to_arrays
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import Streams
from sfumato_common.pictures import GAP
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.terms import ImageForm
from sfumato_common.types import to_bytes, to_unit_range

# the package's attribute of that name is the function
method = importlib.import_module("sfumato_client.anonymise.k_salsa")
VGG = file_of(Vgg19Conv1())
STYLE, CONTENT = terms_for(VGG, "vgg19-conv1"), terms_for(b"", "resnet18", size=16)
DP = dp_sgd(local_steps=1, noise_multiplier=0.001)


def plan_of(channels=1, size=16, private=True, **asked):
    item = {
        "method": "k-salsa",
        "images": 4,
        "k": 3,
        "steps": 8,
        "embedding_steps": 3,
        "encoder_steps": 2,
        "refinement_steps": 2,
    }
    value = {
        "study": "small",
        "image": {"size": size, "channels": channels},
        "labels": ["normal", "opacity"],
        "sites": {"alder": {"nominal_patients": 100}},
        "private": private,
        "privacy": {"epsilon": 10.0, "delta": 1e-5},
        "stages": [
            {"kind": "spectral", "bandwidth": 6, "clip_radius": 4.0, "noise_multiplier": 0.001},
            {"kind": "gan", "width": 8, "generator_steps": 2, "fakes": 4, **DP},
        ],
        "release": [{**item, **asked}],
        "federation": {"quorum": 1},
    }
    return parse(value, Plan, "test")


def released(plan):
    """A spectral model and a generator that has left its start."""
    layout, rng = Layout.of(plan), np.random.default_rng(0)
    k, d = layout.classes, layout.features
    spectral = {
        "shares": np.full(k, 1.0 / k),
        "mean": 0.3 * rng.normal(size=(k, d)),
        "factor": np.stack([0.3 * np.eye(d)] * k),
        "signal": np.stack([np.eye(d)] * k),
        "tail": np.ones(k),
    }
    arrays = {f"spectral/{name}": value.astype(np.float32) for name, value in spectral.items()}
    weights = to_arrays("generator", initial_model("generator", plan))
    moved = {
        name: np.asarray(value + 0.1 * rng.normal(size=value.shape), dtype=np.float32)
        for name, value in weights.items()
    }
    return {"spectral": arrays, "gan": {**arrays, **moved}}


def cohort_of(plan, patients=22, seed=0):
    """Smooth images of patients, of whom every third has two; brightness tells the label."""
    rng = np.random.default_rng(seed)
    patient_index = np.sort(np.concatenate([np.arange(patients), np.arange(0, patients, 3)]))
    labels = patient_index % 2
    size, channels = plan.image.size, plan.image.channels
    coefficients = rng.normal(size=(len(patient_index), channels, size, size)) * public_scale(size)
    coefficients[:, :, 0, 0] += 0.4 * size * (labels[:, None] - 0.5)
    matrix = dct_matrix(size)
    return Cohort(to_bytes(matrix.T @ coefficients @ matrix), labels, patient_index)


def job_of(plan, cohort=None, seed=1, **more):
    return Job(
        Release(plan, "alder", released(plan), cohort or cohort_of(plan), **more),
        plan.release[0],
        Streams.of(TestNoise(seed)),
        NoiseRecorder(TestNoise(0), "entry"),
    )


def changed(job: Job, **terms) -> Job:
    """The job in a release of its own that differs in `terms`, and shares nothing with the first."""
    return dataclasses.replace(job, release=dataclasses.replace(job.release, **{"shared": {}, **terms}))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def slow_grams(features):
    """Gram matrices of every patch, in the paper's units, one product at a time."""
    count, channels, size, _ = features.shape
    side = size // 4
    found = torch.zeros(count, 16, channels, channels)
    for n in range(count):
        for p in range(16):
            top, left = p // 4 * side, p % 4 * side
            rows = features[n, :, top : top + side, left : left + side].reshape(channels, -1)
            found[n, p] = rows @ rows.T * (0.1 * 64 / channels * 4096 / side**2)
    return found


def slow_style_loss(synthetic, sources):
    """Local style alignment of one image's Grams [16, C, C] to [m, 16, C, C], by its definition."""
    total = 0.0
    for source in sources:
        for patch in source:
            cosines = [float((a * patch).sum() / (a.norm() * patch.norm())) for a in synthetic]
            best = synthetic[int(np.argmax(cosines))]
            total += float((best - patch).square().sum())
    return total / (len(sources) * 16)


def test_the_style_loss_is_its_definition_whatever_pads_a_group():
    rng = seeded()
    synthetic = torch.randn(3, 5, 12, 12, generator=rng).relu()
    sources = [torch.randn(m, 5, 12, 12, generator=rng).relu() * (1.0 + g) for g, m in enumerate((2, 4, 3))]
    expected = [slow_style_loss(a, b) for a, b in zip(slow_grams(synthetic), map(slow_grams, sources), strict=True)]
    padded, share = 1e3 * torch.rand(3, 4, 16, 25, generator=rng), torch.zeros(3, 4)
    for row, source in enumerate(sources):
        padded[row, : len(source)] = patch_grams(source)
        share[row, : len(source)] = 1.0 / len(source)
    found = style_loss(patch_grams(synthetic), padded, share)
    assert found.tolist() == pytest.approx(expected, rel=1e-4)


def test_patches_are_matched_by_direction_and_not_by_place_or_size():
    grams = torch.eye(16)[None]
    sources = 3.0 * torch.eye(16)[torch.randperm(16, generator=seeded())][None, None]
    # every source patch has its like three times as small: the other 15 are nearer to none, all at a distance of 4
    assert style_loss(grams, sources, torch.ones(1, 1)).tolist() == pytest.approx([4.0])
    bright = torch.cat([torch.eye(16)[:, :1], 0.0 * torch.eye(16)[:, 1:]], dim=1)[:1]
    near, like = torch.zeros(16, 16), torch.zeros(16, 16)
    near[:, 1], like[:, 0] = 0.1, 10.0
    synthetic = torch.where(torch.arange(16)[:, None] == 5, like, near)[None]
    # the nearest patch is at a distance of about 1, the alike one at 9
    assert style_loss(synthetic, bright.expand(1, 1, 16, 16), torch.ones(1, 1)).tolist() == pytest.approx([81.0])


def test_weights_mean_the_same_at_every_size_and_width():
    pattern = torch.randn(2, 6, 8, 8, generator=seeded(1))
    small, large = pattern.repeat(1, 1, 4, 4), pattern.repeat(1, 1, 8, 8)
    wide = small.repeat(1, 3, 1, 1)
    share = torch.ones(1, 1)
    losses_of = [
        style_loss(g[:1], g[1:][None], share) for g in (patch_grams(features) for features in (small, large, wide))
    ]
    assert losses_of[0] > 1.0
    assert torch.allclose(losses_of[1], losses_of[0], rtol=1e-4)
    assert torch.allclose(losses_of[2], losses_of[0], rtol=1e-4)


def test_nt_xent_is_its_definition():
    one, two = torch.randn(2, 4, 6, generator=seeded())
    rows = [row / row.norm() for row in (*one, *two)]
    total = 0.0
    for i in range(8):
        terms = [float(torch.exp(rows[i] @ rows[j] / 0.2)) if j != i else 0.0 for j in range(8)]
        total -= np.log(terms[(i + 4) % 8] / sum(terms))
    assert float(nt_xent(one, two)) == pytest.approx(total / 8, rel=1e-4)


def smooth(count, seed):
    """Images uint8 [N, 16, 16] that differ in five by five low frequencies, by less than a view's brightness."""
    coefficients, matrix = np.zeros((count, 1, 16, 16)), dct_matrix(16)
    coefficients[:, :, :5, :5] = 0.16 * np.random.default_rng(seed).normal(size=(count, 1, 5, 5))
    return to_bytes(matrix.T @ coefficients @ matrix)


def retrieved(net, images):
    """Share of images whose one view is nearest to their own other view."""
    x, rng = torch.from_numpy(to_unit_range(images)), seeded(4)
    one, two = (functional.normalize(net(view(x, rng)), dim=1) for _ in range(2))
    return float(((one @ two.T).argmax(dim=1) == torch.arange(len(x))).float().mean())


def test_training_finds_an_image_again_far_more_often_than_chance_or_a_random_network():
    seen, holdout_images = smooth(150, 1), smooth(100, 2)
    cohort = Cohort(seen, np.zeros(150, np.int64), np.arange(150))
    random, trained = train(cohort, 1, seeded()), train(cohort, 40, seeded())
    assert retrieved(trained, holdout_images) > max(0.25, 1.4 * retrieved(random, holdout_images))
    with torch.no_grad():
        x = torch.from_numpy(to_unit_range(seen))
        local, embedded = trained.features(x)
        assert float(local.square().mean()) == pytest.approx(1.0, rel=1e-3)
        assert embedded.mean(dim=0).abs().max() < 1e-4
        assert torch.allclose(trained(x[3:4]), embedded[3:4], atol=1e-5)


def test_a_batch_holds_a_patient_once_and_views_are_not_mirrored():
    patient_index = torch.tensor([0, 0, 0, 1, 2, 2, 3])
    drawn = [self_supervised._one_of_each(patient_index, 4, rng) for rng in map(seeded, range(20))]
    assert all(sorted(patient_index[rows].tolist()) == [0, 1, 2, 3] for rows in drawn)
    assert {int(row) for rows in drawn for row in rows} == set(range(7))
    half = torch.full((50, 1, 16, 16), -0.8)
    half[:, :, :, :8] = 0.8
    seen = view(half, seeded())
    assert (seen[:, :, :, :6].mean(dim=(1, 2, 3)) > seen[:, :, :, 10:].mean(dim=(1, 2, 3)) + 0.5).all()
    assert (seen - half).abs().mean() > 0.05
    assert seen.abs().max() <= 1.0


def test_weights_that_the_site_was_given_are_taken_by_every_item():
    job = job_of(plan_of())
    mine = {name: np.full(value.shape, 0.01, np.float32) for name, value in ContrastiveNet(16, 1).named_parameters()}
    with_weights = changed(job, style_net=mine)
    given = embedding_of(with_weights, 3)
    assert all((parameter == 0.01).all() for parameter in given.parameters())
    assert embedding_of(with_weights, 4) is given
    assert not all((parameter == 0.01).all() for parameter in embedding_of(job, 3).parameters())


def test_a_single_patient_has_nobody_to_be_compared_with():
    with pytest.raises(DataError):
        train(Cohort(smooth(3, 0), np.zeros(3, np.int64), np.zeros(3, np.int64)), 3, seeded())


def test_given_weights_are_read_back_and_all_others_refused():
    form, net = ImageForm(size=16, channels=1), ContrastiveNet(16, 1)
    data = encode_style_net(net)
    found = read_style_net(data, form)
    assert all(np.array_equal(found[name], value.detach().numpy()) for name, value in net.named_parameters())
    tensors = {name: torch.from_numpy(value) for name, value in found.items()}
    wrong = {
        "no safetensors": b"weights",
        "32 x 32": encode_style_net(ContrastiveNet(32, 1)),
        "16 x 16": save({**tensors, "more": torch.zeros(2)}),
        "no training": save({**tensors, "stem.bias": torch.full((16,), torch.nan)}),
    }
    for words, file in wrong.items():
        with pytest.raises(VerificationError, match=words):
            read_style_net(file, ImageForm(size=32, channels=3) if words == "32 x 32" else form)


def test_the_rate_ramps_up_and_down():
    assert ramp(0, 100) == 0.0
    assert [ramp(step, 100) for step in (5, 40, 75)] == pytest.approx([1.0] * 3)
    assert ramp(2, 100) == pytest.approx(0.4)
    assert ramp(90, 100) == pytest.approx(0.5 * (1.0 - np.cos(np.pi * 0.4)))


def given(*names: str, channels: int = 1) -> Job:
    """A k-SALSA job whose plan names encoders for `names`."""
    terms = {"content_encoder": ("eyes", CONTENT), "style_encoder": ("brush", STYLE)}
    plain = plan_of(channels).model_dump(mode="json")
    plain["encoders"] = {terms[name][0]: terms[name][1].model_dump() for name in names}
    plain["release"][0] |= {name: terms[name][0] for name in names}
    encoders = {"eyes": tiny_encoder(), "brush": read_encoder(STYLE, VGG)}
    return dataclasses.replace(job_of(parse(plain, Plan, "test")), encoders=encoders)


@pytest.mark.parametrize("names", [("content_encoder",), ("style_encoder",), ("content_encoder", "style_encoder")])
def test_k_salsa_compares_by_what_is_given_and_by_its_own_network_otherwise(names):
    job = given(*names)
    net = net_of(job)
    assert isinstance(net, GivenNet)
    assert net_of(job) is net
    assert isinstance(net.own, ContrastiveNet) == (len(names) == 1)
    images = torch.from_numpy(to_unit_range(job.cohort.everything()[0]))
    local, embedded = net.features(images)
    assert torch.equal(net(images), embedded)
    assert float(local.square().mean()) == pytest.approx(1.0, abs=0.02)
    assert float(embedded.mean(dim=0).abs().max()) < 1e-4
    assert embedded.shape[1] == (512 if "content_encoder" in names else 256)
    assert local.shape[1:] == (64 if "style_encoder" in names else 16, 16, 16)


@pytest.mark.parametrize("channels", [1, 3])
def test_both_terms_given_make_images_and_train_nothing_on_the_cohort(channels, monkeypatch):
    job = given("content_encoder", "style_encoder", channels=channels)
    monkeypatch.setattr("sfumato_client.anonymise.self_supervised.train", pytest.fail)
    made, again = k_salsa(job), k_salsa(given("content_encoder", "style_encoder", channels=channels))
    assert made.images.shape == (4, 16, 16, *([3] if channels == 3 else []))
    assert np.array_equal(made.images, again.images)
    assert made.guarantee == "syntactic"
    monkeypatch.undo()
    plain = k_salsa(job_of(plan_of(channels)))
    assert not np.array_equal(made.images, plain.images)


@pytest.fixture(scope="module")
def made():
    """A job's space, embedding and patients, and three groups of different sizes."""
    job = job_of(plan_of())
    members = [torch.tensor([0, 2]), torch.tensor([1, 3, 5, 7, 9]), torch.tensor([4, 6, 8])]
    space, components = space_of(job), torch.tensor([0, 1, 0])
    net = embedding_of(job, 3).to(space.spectral.matrix.device)
    noise = noise_of(space, components, TorchDraws(seeded(3)))
    labels = np.zeros(job.cohort.patients, np.int64)
    for group, component in zip(members, components.tolist(), strict=True):
        labels[group.numpy()] = component
    patients = encode_patients(inverter_of(job), job.cohort, labels, torch.from_numpy(labels))
    return space, net, patients, members, components, noise, job.item


def alone(noise, row):
    return Noise(noise.tail[row : row + 1], [part[row : row + 1] for part in noise.maps])


def test_targets_and_losses_of_padded_groups_are_their_definitions(made):
    space, net, patients, members, components, noise, _ = made
    targets = targets_of(space, net, patients, members, noise)
    w = targets.codes + 0.3
    content, style = losses(space, net, targets, w)
    for row, group in enumerate(members):
        assert torch.allclose(targets.codes[row].cpu(), patients.codes[group].mean(dim=0), atol=1e-5)
        own = alone(noise, row)
        image = space.decode(w[row : row + 1], components[row : row + 1].to(w.device), own)
        local, embedded = net.features(image)
        cosines, grams = [], []
        for member in group.tolist():
            code = patients.codes[member : member + 1].to(w.device)
            rebuilt = space.decode(code, patients.components[member : member + 1].to(w.device), own)
            cosines.append(float(functional.cosine_similarity(embedded, net(rebuilt))))
            original = torch.from_numpy(to_unit_range(patients.images[member : member + 1])).to(w.device)
            grams.append(slow_grams(net.features(original)[0].cpu())[0])
        assert float(content[row]) == pytest.approx(1.0 - np.mean(cosines), abs=1e-4)
        assert float(style[row]) == pytest.approx(slow_style_loss(slow_grams(local.cpu())[0], grams), rel=1e-3)


def test_a_groups_code_is_the_same_alone_and_among_others(made):
    space, net, patients, members, _, noise, item = made
    together = align(space, net, targets_of(space, net, patients, members, noise), item)
    assert together.shape == (3, space.layers, patients.codes.shape[1])
    for row, group in enumerate(members):
        own = targets_of(space, net, patients, [group], alone(noise, row))
        single = align(space, net, own, item)
        assert (single - own.codes[:, None]).abs().max() > 0.1
        assert torch.allclose(single[0], together[row], atol=5e-4)


def test_a_groups_bits_hang_on_neither_memory_nor_cores_nor_the_other_groups(made, monkeypatch):
    space, net, patients, members, _, noise, item = made
    three = [group[:3] for group in members if len(group) > 2] * 6
    of = torch.tensor([1, 2] * 6)  # each with its own noise
    codes, whole = align_groups(space, net, patients, three, noise, of, item)
    assert (whole - codes[:, None]).abs().max() > 0.1
    monkeypatch.setenv("SFUMATO_MEMORY", "1")
    assert torch.equal(align_groups(space, net, patients, three, noise, of, item)[1], whole)
    assert torch.equal(align_groups(space, net, patients, three[:1], noise, of[:1], item)[1], whole[:1])
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            others = [three[0], *three[2:], three[0]]
            found = align_groups(space, net, patients, others, noise, of[[0, *range(2, 12), 0]], item)[1]
            assert torch.equal(found[0], whole[0])
            assert not torch.equal(found[1], whole[1])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("term", [0, 1])
def test_each_term_alone_is_brought_down(made, term):
    space, net, patients, members, _, noise, item = made
    targets = targets_of(space, net, patients, members, noise)
    weights = {"content_weight": 100.0 * (1 - term), "style_weight": 1e-6 * term, "steps": 30}
    before = losses(space, net, targets, targets.codes)[term]
    after = losses(space, net, targets, align(space, net, targets, item.model_copy(update=weights)))[term]
    assert (after < 0.99 * before).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_one_image_a_group_of_patients_and_none_is_a_record(channels):
    plan = plan_of(channels)
    job = job_of(plan)
    found = k_salsa(job)
    assert found.images.shape == ((4, 16, 16) if channels == 1 else (4, 16, 16, 3))
    assert found.images.dtype == np.uint8
    assert (found.method, found.model, found.guarantee, found.spends) == ("k-salsa", "gan", "syntactic", ())
    assert set(found.labels.tolist()) <= {0, 1}
    assert 3 <= found.patients <= 5
    # 11 patients a label: three groups, larger than three where they took one of the two that are left
    sizes = [len(group.members) for group in groups_of(job)]
    assert (len(sizes), sum(sizes), min(sizes)) == (6, 22, 3)
    assert max(sizes) > 3
    records = {image.tobytes() for image in job.cohort.everything()[0]}
    assert not records & {image.tobytes() for image in found.images}
    assert len({image.tobytes() for image in found.images}) == 4


def test_a_seed_gives_the_same_images_also_in_smaller_chunks_and_another_seed_others(monkeypatch):
    plan = plan_of(images=6)
    first, again, other = (k_salsa(job_of(plan, seed=seed)) for seed in (1, 1, 2))
    assert np.array_equal(first.images, again.images)
    assert not np.array_equal(first.images, other.images)
    monkeypatch.setenv("SFUMATO_MEMORY", "1")
    chunks = k_salsa(job_of(plan, seed=1))
    assert np.array_equal(chunks.labels, first.labels)
    assert np.array_equal(chunks.images, first.images)


def test_without_privacy_the_word_is_heuristic():
    assert k_salsa(job_of(plan_of(private=False))).guarantee == "heuristic"


def test_a_contact_sheet_is_left_only_where_it_may_be(tmp_path):
    plan = plan_of(images=6)
    plain, local = job_of(plan), changed(job_of(plan), steward_folder=tmp_path / "local")
    without, found = k_salsa(plain), k_salsa(local)
    assert np.array_equal(without.images, found.images)
    written = list(tmp_path.rglob("*"))
    assert [path.name for path in written if path.is_file()] == ["k-salsa-gan.png"]
    sheet = tmp_path / "local" / "k-salsa-gan.png"
    assert stat.S_IMODE(sheet.stat().st_mode) == 0o600
    picture, step = np.asarray(Image.open(sheet)), 16 + GAP
    tiles = {
        picture[row : row + 16, column : column + 16].tobytes()
        for row in range(0, picture.shape[0], step)
        for column in range(0, picture.shape[1], step)
    }
    assert all(image.tobytes() in tiles for image in found.images)
    assert sum(image.tobytes() in tiles for image in patients_of(local).images) == 22


def test_a_contact_sheet_shows_eight_groups_at_most():
    plan = plan_of(k=2, images=10)
    job = job_of(plan)
    patients = patients_of(job)
    groups = groups_of(job)
    assert len(groups) == 10
    pixels = np.zeros((10, 16, 16), np.uint8)
    assert len(method._rows(space_of(job), patients, groups, pixels, pixels, 8)) == 16  # members, and what was made
