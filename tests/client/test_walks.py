"""Walks between groups: who is joined, what is shown, and what bends a walk."""

from __future__ import annotations

import dataclasses
import importlib
import stat
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from support.plans import dp_sgd
from torch.nn import functional

from sfumato_client.anonymise import ANONYMISERS, Job, Release, anonymise
from sfumato_client.anonymise.groups import groups_of
from sfumato_client.anonymise.identities import Identities, anonymity, fit_recogniser, identities_of
from sfumato_client.anonymise.inversion import space_of
from sfumato_client.anonymise.linear_walk import Walks, layout, walks_of
from sfumato_client.anonymise.patients import patients_of
from sfumato_client.anonymise.plan_walk import bend_walks, elastic_gradient, elastic_unit, weight_of_image
from sfumato_client.dataset.cohort import Cohort
from sfumato_common.errors import DataError, ReleaseRefused
from sfumato_common.generators.spectral.dct import dct_matrix, public_scale
from sfumato_common.generators.spectral.fit import fit_release
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.spectral.release import noised_release
from sfumato_common.generators.starts import initial_model
from sfumato_common.generators.weights import to_arrays
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import SecretStream, Streams
from sfumato_common.pictures import GAP
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.types import to_bytes, to_unit_range

# the package's names for them are the functions'
straight = importlib.import_module("sfumato_client.anonymise.linear_walk")
bending = importlib.import_module("sfumato_client.anonymise.plan_walk")
DP = dp_sgd(local_steps=1)
WALK = {"k": 3, "points": 4, "images": 10, "encoder_steps": 5, "refinement_steps": 2}
BENT = {**WALK, "method": "plan-walk", "steps": 12, "classifier_steps": 60}


def make_plan(*items, private=True) -> Plan:
    sigma = 0.01 if private else 0.001
    value = {
        "study": "small",
        "image": {"size": 16},
        "labels": ["normal", "opacity"],
        "sites": {"alder": {"nominal_patients": 50}},
        "privacy": {"epsilon": 10.0, "delta": 1e-5},
        "stages": [
            {"kind": "spectral", "bandwidth": 4, "clip_radius": 4.0, "spread_radius": 3.0, "noise_multiplier": sigma},
            {
                "kind": "gan",
                "width": 8,
                "generator_steps": 1,
                "fakes": 4,
                **{**DP, "noise_multiplier": 1.0 if private else 0.001},
            },
        ],
        "release": list(items),
        "federation": {"quorum": 1},
        "private": private,
    }
    return parse(value, Plan, "test")


def make_cohort(patients=40, seed=0) -> Cohort:
    """Smooth random pictures, one or two a patient, brighter where the label is 1."""
    rng, matrix = np.random.default_rng(seed), dct_matrix(16)
    patient_index = np.repeat(np.arange(patients), 1 + np.arange(patients) % 2)
    people = rng.normal(size=(patients, 1, 16, 16)) * public_scale(16)
    coefficients = people[patient_index] + 0.1 * rng.normal(size=(len(patient_index), 1, 16, 16)) * public_scale(16)
    labels = (np.arange(patients) % 4 == 0).astype(np.int64)[patient_index]
    coefficients[:, :, 0, 0] += 3.2 * (labels[:, None] - 0.5)
    return Cohort(to_bytes(matrix.T @ coefficients @ matrix), labels, patient_index)


@cache
def released_models(private):
    """The same for every plan of a test: what is released does not depend on what is made from it."""
    plan = make_plan({"method": "linear-walk", **WALK}, private=private)
    images, labels, _ = COHORT.everything()
    fit = Layout.of(plan), plan.spectral.noise_multiplier, images, labels, np.ones(len(images))
    release = noised_release(*fit, lambda part, s, m: part)
    spectral = {f"spectral/{name}": value for name, value in fit_release(plan, {"alder": release}).items()}
    generator = initial_model("generator", plan)
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter += 0.03 * torch.randn(parameter.shape, generator=rng)
    return {"spectral": spectral, "gan": {**spectral, **to_arrays("generator", generator)}}


COHORT = make_cohort()


def make_jobs(*items, seed=1, private=True):
    """Jobs of one plan that differ in nothing but the item."""
    plan, models = make_plan(*items, private=private), released_models(private)
    streams = [Streams.of(TestNoise(seed)) for _ in items]
    recorder = NoiseRecorder(TestNoise(0), "entry")
    return [
        Job(Release(plan, "alder", models, COHORT), item, own, recorder)
        for item, own in zip(plan.release, streams, strict=True)
    ]


def make_job(item=None, **changes):
    (job,) = make_jobs({"method": "linear-walk", **WALK, **(item or {})}, **changes)
    return job


def changed(job: Job, **terms) -> Job:
    """The job in a release of its own that differs in `terms`, and shares nothing with the first."""
    return dataclasses.replace(job, release=dataclasses.replace(job.release, **{"shared": {}, **terms}))


@pytest.mark.parametrize("count", range(2, 9))
@pytest.mark.parametrize("images", [1, 7, 20, 90])
def test_groups_are_joined_evenly_and_no_pair_twice_before_all_came_once(count, images):
    labels = np.zeros(count, np.int64)
    secret = SecretStream(TestNoise(images))
    pairs, positions, released = layout(labels, np.ones(1), images, 3, secret)
    walks, possible = -(-images // 3), count * (count - 1) // 2
    assert pairs.shape == (walks, 2)
    assert int(released.sum()) == images
    assert bool((pairs[:, 0] != pairs[:, 1]).all())
    found = [frozenset(pair) for pair in pairs.tolist()]
    times = [found.count(pair) for pair in set(found)]
    assert len(times) == min(walks, possible)
    assert max(times) == -(-walks // possible)
    if walks <= possible:
        ends = np.bincount(pairs.flatten().numpy(), minlength=count)
        assert ends.max() - ends.min() <= 2
    places = {(pair, round(place, 6)) for pair, row in zip(found, positions.tolist(), strict=True) for place in row}
    assert len(places) == 3 * walks, "walks on one pair have points of their own"
    assert 0 < float(positions.min()) <= float(positions.max()) < 1


def test_a_single_walk_has_evenly_spaced_points():
    _, positions, _ = layout(np.zeros(2, np.int64), np.ones(1), 3, 3, SecretStream(TestNoise(0)))
    assert positions.tolist() == [pytest.approx([0.25, 0.5, 0.75])]


def test_images_follow_the_shares_of_labels_that_have_two_groups():
    labels = np.array([0, 0, 0, 1, 2, 2])
    pairs, _, released = layout(labels, np.array([0.3, 0.4, 0.3]), 20, 4, SecretStream(TestNoise(0)))
    joined = labels[pairs.numpy()]
    assert (joined[:, 0] == joined[:, 1]).all()
    shown = np.repeat(joined[:, 0], released.sum(1).numpy())
    assert np.bincount(shown).tolist() == [10, 0, 10]
    empty, _, _ = layout(labels, np.array([0.0, 1.0, 0.0]), 4, 4, SecretStream(TestNoise(0)))
    assert len(empty) == 2


def test_one_group_a_label_is_refused_without_a_number():
    with pytest.raises(DataError) as caught:
        layout(np.array([0, 1]), np.array([0.5, 0.5]), 4, 2, SecretStream(TestNoise(0)))
    assert not any(character.isdigit() for character in str(caught.value))
    with pytest.raises(DataError):
        anonymise(make_job({"k": 30}))


@pytest.mark.parametrize("item", [{}, BENT], ids=["linear", "plan"])
def test_the_contract(item):
    item = item and {**item, "classifier_steps": 5, "steps": 4}
    job = make_job(item)
    found = anonymise(job)
    assert found.images.shape == (10, 16, 16) and found.images.dtype == np.uint8
    assert (found.method, found.model, found.spends) == (job.item.method, "gan", ())
    assert found.guarantee == ("heuristic" if item else "syntactic")
    assert found.patients >= 2 * job.item.k
    assert set(found.labels) == {0, 1}
    assert len(np.unique(found.images.reshape(10, -1), axis=0)) == 10
    again, other = anonymise(make_job(item)), anonymise(make_job(item, seed=2))
    assert (again.images == found.images).all() and (again.labels == found.labels).all()
    assert (other.images != found.images).any()
    assert ANONYMISERS[found.method]


def test_without_privacy_nothing_is_claimed():
    assert anonymise(make_job(private=False)).guarantee == "heuristic"


@pytest.mark.parametrize("item", [{}, {**BENT, "classifier_steps": 20}], ids=["linear", "plan"])
def test_no_end_and_no_record_is_ever_shown(item, monkeypatch):
    job, codes = make_job({**item, "images": 60}), []
    draw, bend = straight.draw_restrained, bending.bend_walks

    def drawn(space, plain, made, *rest):
        codes.append(made[:1])
        return draw(space, plain, made, *rest)

    def bent(space, walks, *rest):
        codes.append(bend(space, walks, *rest))
        return codes[-1]

    monkeypatch.setattr(straight, "draw_restrained", drawn)
    monkeypatch.setattr(bending, "bend_walks", bent)
    anonymise(job)
    patients = patients_of(job)
    ends = torch.stack([patients.codes[g.members].mean(0) for g in groups_of(job)])
    points = torch.cat([some.reshape(-1, ends.shape[1]) for some in codes])
    assert len(points) >= 60
    apart = torch.cdist(ends, ends)[~torch.eye(len(ends), dtype=torch.bool)].min()
    assert torch.cdist(points, ends).min() > 0.05 * apart
    assert torch.cdist(points, patients.codes).min() > 0.05 * apart


def test_a_sheet_of_walks_is_left_only_where_it_may_be_and_shows_no_record(tmp_path):
    item = {**BENT, "classifier_steps": 20, "images": 8}
    plain, local = make_job(item), changed(make_job(item), steward_folder=tmp_path / "local")
    without, found = anonymise(plain), anonymise(local)
    assert np.array_equal(without.images, found.images)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["plan-walk-gan.png"]
    sheet = tmp_path / "local" / "plan-walk-gan.png"
    assert stat.S_IMODE(sheet.stat().st_mode) == 0o600
    picture, size = np.asarray(Image.open(sheet)), found.images.shape[1]
    tiles = [
        picture[row : row + size, column : column + size].tobytes()
        for row in range(0, picture.shape[0], size + GAP)
        for column in range(0, picture.shape[1], size + GAP)
    ]
    assert all(image.tobytes() in tiles for image in found.images)
    assert not any(record.tobytes() in tiles for record in local.cohort.everything()[0])


def test_without_a_patient_the_ends_are_others_and_the_bend_is_held(monkeypatch):
    """What a walk is held against moves by what its group's mean moves, and is bent as the walk itself."""
    job, drawn, bends = make_job({**BENT, "classifier_steps": 20}), [], []
    draw, bend = straight.draw_restrained, bending.bend_on_all_cores

    def watch(space, plain, made, *rest):
        drawn.append((plain, made))
        return draw(space, plain, made, *rest)

    def bend_once(space, walks, *rest):
        bends.append((walks, bend(space, walks, *rest)))
        return bends[-1][1]

    monkeypatch.setattr(straight, "draw_restrained", watch)
    monkeypatch.setattr(bending, "bend_on_all_cores", bend_once)
    anonymise(job)
    ((walks, points),) = bends
    bent_by = (points.cpu() - walks.linear()).flatten(0, 1)[walks.released_points()]
    assert len(drawn) == len(bent_by) == 10
    for (plain, made), own in zip(drawn, bent_by, strict=True):
        assert len(made) >= 1 + 2 * job.item.k
        ends_move = (plain[1:] - plain[:1]).norm(dim=1)
        assert ends_move.min() > 0.0
        assert own.norm() > 0.01, "the walk is bent, and not by rounding"
        assert torch.allclose(made - plain, own.expand_as(made), atol=1e-4 * float(own.norm()))


def test_a_point_on_an_end_is_refused():
    walks = walks_of(make_job())
    for place in (0.0, 1.0):
        with pytest.raises(ReleaseRefused, match="never one of its images"):
            dataclasses.replace(walks, positions=torch.full_like(walks.positions, place))


def test_both_methods_start_from_the_same_walks():
    one, two = (walks_of(job) for job in make_jobs({"method": "linear-walk", **WALK}, BENT))
    assert torch.equal(one.ends, two.ends) and torch.equal(one.released, two.released)
    assert torch.allclose(one.linear()[:, 0], one.ends[:, 0] + 0.2 * (one.ends[:, 1] - one.ends[:, 0]), atol=1e-5)


class Bend:
    """A job of the method `plan-walk` with what it starts from."""

    def __init__(self, **changes):
        self.job = make_job({**BENT, "images": 20, **changes})
        self.space, self.walks = space_of(self.job), walks_of(self.job)
        self.noise = self.space.draw_noise(self.walks.components_of_points(), self.job.streams.published)
        self.identities = identities_of(self.job, self.job.item.classifier_steps)

    def points(self, at_once=1000, **changes):
        item = self.job.item.model_copy(update=changes)
        return bend_walks(self.space, self.walks, self.noise, self.identities, item, at_once)

    def images(self, points):
        components = self.walks.components_of_points()
        return self.space.decode(points.flatten(0, 1), components, self.noise)


@pytest.fixture(scope="module")
def bend():
    return Bend()


def test_what_is_computed_at_once_changes_nothing(bend):
    # a weight that counts: where nothing but rounding moves a code, Adam takes it for a gradient
    whole = bend.points(identity_weight=50.0, steps=8)
    moved = (whole - bend.walks.linear()).abs().max()
    assert moved > 0.2
    for at_once in (1, 3, 7):
        assert (bend.points(at_once, identity_weight=50.0, steps=8) - whole).abs().max() < 1e-2 * moved


def test_a_walk_alone_is_the_walk_in_the_batch(bend):
    item = bend.job.item.model_copy(update={"identity_weight": 50.0, "steps": 8})
    whole, walks, count = bend.points(identity_weight=50.0, steps=8), bend.walks, bend.walks.positions.shape[1]
    moved = (whole - walks.linear()).abs().max()
    for one in range(len(whole)):
        own = walks.some(torch.tensor([one]))
        noise = bend.noise.at(torch.arange(one * count, (one + 1) * count))
        alone = bend_walks(bend.space, own, noise, bend.identities, item, 1000)
        assert (alone[0] - whole[one]).abs().max() < 1e-2 * moved


def test_a_walks_bits_hang_on_neither_memory_nor_cores_nor_the_other_walks(bend, monkeypatch):
    item, walks = bend.job.item.model_copy(update={"identity_weight": 50.0, "steps": 8}), bend.walks
    points = walks.positions.shape[1]

    def points_of(some):
        rows = (some[:, None] * points + torch.arange(points)).flatten()
        own = walks.some(some), bend.noise.at(rows)
        return bending.bend_on_all_cores(bend.space, *own, bend.identities, item)

    many = torch.arange(len(walks.ends)).repeat(12 // len(walks.ends))
    whole = points_of(many)
    monkeypatch.setenv("SFUMATO_MEMORY", "1")
    assert torch.equal(points_of(many), whole)
    assert torch.equal(points_of(torch.cat([many[:1], many[1:].flip(0)]))[0], whole[0])
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert torch.equal(points_of(many[: len(many) // 2]), whole[: len(many) // 2])
    finally:
        torch.set_num_threads(before)


def known(bend, points):
    """How far phi_id is from calling the images anybody's, in nats, on average."""
    with torch.no_grad():
        return float(anonymity(bend.identities.who(bend.images(points))).mean())


def test_the_identity_term_makes_phi_id_unsure(bend):
    linear = known(bend, bend.walks.linear())
    moved = known(bend, bend.points(steps=30, identity_weight=50.0))
    without = known(bend, bend.points(steps=30, identity_weight=0.0))
    assert linear > 0.5, "phi_id knows somebody on a straight walk"
    assert without > 0.9 * linear
    assert moved < 0.75 * linear


def test_the_class_term_draws_to_the_label(bend):
    other = dataclasses.replace(bend.walks, labels=1 - bend.walks.labels)
    labels = other.labels.repeat_interleave(other.positions.shape[1])

    def unlike(weight):
        item = bend.job.item.model_copy(update={"steps": 30, "class_weight": weight})
        points = bend_walks(bend.space, other, bend.noise, bend.identities, item, 1000)
        with torch.no_grad():
            return float(functional.cross_entropy(bend.identities.what(bend.images(points)), labels))

    assert unlike(50.0) < 0.5 * unlike(0.0)


def test_weights_are_the_published_ones_where_four_divides_the_walk(bend):
    """The published loss written out: chunks of four over all T images, ends counted; T = 8."""
    job = make_job({**BENT, "points": 6, "images": 12})
    space, walks, item = space_of(job), walks_of(job), job.item
    interior = walks.linear()[0].clone().requires_grad_()
    path = torch.cat([walks.ends[0, :1], interior, walks.ends[0, 1:]])
    noise = space.draw_noise(walks.components[[0] * 8], TorchDraws(torch.Generator().manual_seed(0)))
    images = space.decode(path, walks.components[[0] * 8], noise)
    labels, identities = walks.labels[[0] * 8], bend.identities
    loss = (path[1:] - path[:-1]).square().sum()
    for chunk in (slice(0, 4), slice(4, 8)):
        logs = identities.who(images[chunk]).log_softmax(1)
        uniform = torch.full_like(logs, 1.0 / logs.shape[1])
        loss = loss + item.identity_weight * functional.kl_div(logs, uniform, reduction="batchmean")
        loss = loss + item.class_weight * functional.cross_entropy(identities.what(images[chunk]), labels[chunk])
    (published,) = torch.autograd.grad(loss, interior)

    first = walks.some(torch.tensor([0]))
    inner = noise.at(torch.arange(1, 7))
    taken = {}

    class Watched(torch.optim.Adam):
        def step(self):
            taken["gradient"] = self.param_groups[0]["params"][0].grad.float()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "Adam", Watched)
        bend_walks(space, first, inner, identities, item.model_copy(update={"steps": 1}), 3)
    assert torch.allclose(taken["gradient"][0], published, rtol=1e-3, atol=1e-5 * float(published.abs().max()))
    assert weight_of_image(6) == 0.25


def test_the_elastic_gradient_is_the_derivative():
    rng = torch.Generator().manual_seed(0)
    ends, points = torch.randn(3, 2, 5, generator=rng), torch.randn(3, 4, 5, generator=rng, requires_grad=True)
    path = torch.cat([ends[:, :1], points, ends[:, 1:]], dim=1)
    (true,) = torch.autograd.grad((path[:, 1:] - path[:, :-1]).square().sum(), points)
    assert torch.allclose(elastic_gradient(ends, points.detach()), true, atol=1e-5)


def test_the_elastic_term_in_the_walks_own_length_is_the_same_in_every_unit():
    """sum ||stride||^2 / ||w_T - w_1||^2 of a straight walk is 1 / (T - 1), its gradient that of the quotient."""
    rng = torch.Generator().manual_seed(0)
    ends = torch.randn(3, 2, 5, generator=rng)
    straight = Walks(ends, torch.tensor([[0.25, 0.5, 0.75]] * 3), torch.ones(3, 3) > 0, *torch.zeros(2, 3).long(), 0)
    path = torch.cat([ends[:, :1], straight.linear(), ends[:, 1:]], dim=1)
    squares = (path[:, 1:] - path[:, :-1]).square().sum(dim=(1, 2))
    assert torch.allclose(squares / elastic_unit(ends).flatten(), torch.full((3,), 0.25))
    points = straight.linear() + torch.randn(3, 3, 5, generator=rng)
    relative = elastic_gradient(ends, points) / elastic_unit(ends)
    other = elastic_gradient(30.0 * ends, 30.0 * points) / elastic_unit(30.0 * ends)
    assert torch.allclose(30.0 * other, relative, rtol=1e-4), "a derivative in codes of another unit"
    assert elastic_unit(torch.zeros(2, 2, 5)).flatten().tolist() == [1.0, 1.0], "ends that are one code"


def test_at_the_published_weights_a_walk_bends_by_its_own_length_and_hardly_in_the_spaces_unit(bend):
    moved, unsure = {}, {}
    for elastic in ("absolute", "relative"):
        points = bend.points(steps=60, elastic=elastic)
        length = (bend.walks.ends[:, 1] - bend.walks.ends[:, 0]).norm(dim=1)
        moved[elastic] = float(((points - bend.walks.linear()).norm(dim=2) / length[:, None]).mean())
        unsure[elastic] = known(bend, points)
    assert moved["relative"] > 5.0 * moved["absolute"]
    assert unsure["relative"] < 0.8 * known(bend, bend.walks.linear()) < 1.1 * unsure["absolute"]


def test_a_plan_from_before_the_unit_keeps_its_digest_and_its_meaning():
    before = make_plan({"method": "linear-walk", **WALK}, BENT)
    said = make_plan({"method": "linear-walk", **WALK}, {**BENT, "elastic": "absolute"})
    other = make_plan({"method": "linear-walk", **WALK}, {**BENT, "elastic": "relative"})
    assert before.release[1].elastic == "absolute"
    assert before.digest == said.digest != other.digest
    assert "elastic" not in before.release[1].model_dump() and other.release[1].model_dump()["elastic"] == "relative"


def test_anonymity_is_a_divergence_from_everybody():
    logits = torch.tensor([[2.0, 2.0, 2.0, 2.0], [9.0, 0.0, 0.0, 0.0]])
    kl = anonymity(logits)
    assert float(kl[0]) == pytest.approx(0.0, abs=1e-6)
    uniform = torch.full((1, 4), 0.25)
    assert float(kl[1]) == pytest.approx(
        float(functional.kl_div(logits[1:].log_softmax(1), uniform, reduction="batchmean")), rel=1e-5
    )


def test_phi_id_knows_its_patients_and_each_image_alone(bend):
    images, labels, patient_index = COHORT.everything()
    x = torch.from_numpy(to_unit_range(images))
    who, what = bend.identities.who(x), bend.identities.what(x)
    assert (who.argmax(1).numpy() == patient_index).mean() > 0.5
    assert (what.argmax(1).numpy() == labels).mean() > 0.9
    assert torch.allclose(bend.identities.who(x[5:6]), who[5:6], atol=1e-4)
    one, two = (fit_recogniser(images, torch.from_numpy(labels), 2, 3, torch.Generator().manual_seed(4)) for _ in "ab")
    assert torch.equal(one.head.weight, two.head.weight)


def test_classifiers_are_trained_once_a_release_and_leave_in_nothing(bend):
    job = bend.job
    assert identities_of(job, job.item.classifier_steps) is bend.identities
    found = anonymise(job)
    assert not any(isinstance(value, Identities | torch.nn.Module) for value in vars(found).values())
