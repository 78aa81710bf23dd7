"""Sealing: approved candidates only, exactly the plan's request, under random names; and DP sampling before it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.plans import dp_sgd
from tests.support.certificates import CERTIFICATE

from sfumato_client.anonymise import ANONYMISERS, CandidateSet, Job, Release, anonymise, sampling
from sfumato_client.audit import verdict
from sfumato_client.audit.verdict import Approved
from sfumato_client.dataset.cohort import Cohort
from sfumato_client.release import seal
from sfumato_common.accounting.events import KAverageGaussian
from sfumato_common.crypto.identity import create_identity
from sfumato_common.errors import PolicyRefusal, ReleaseRefused
from sfumato_common.imaging import decode_png
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import Streams
from sfumato_common.package import open_package
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy

PLAN = parse(
    {
        "study": "chest",
        "image": {"size": 16, "channels": 1},
        "labels": ["normal", "abnormal"],
        "sites": {"north": {"nominal_patients": 100}},
        "privacy": {"epsilon": 10.0, "delta": 1e-5},
        "stages": [
            {"kind": "spectral", "bandwidth": 8, "clip_radius": 1.0, "noise_multiplier": 2.0},
            dp_sgd(kind="gan", rounds=2, local_steps=3, sampling_rate=0.1),
        ],
        "release": [{"model": "spectral", "images": 12}, {"model": "gan", "images": 30}],
        "federation": {"quorum": 1},
    },
    Plan,
    "plan",
)
POLICY = parse(
    {
        "site": "north",
        "budget": {"epsilon": 10.0, "delta": 1e-5},
        "allowed_stages": ["spectral", "gan"],
        "minimum_patients": 10,
        "release": {"allowed_methods": ["dp-sampling"], "largest_set": 42, "gate": {"declare_verdict": True}},
    },
    Policy,
    "policy",
)


def candidates(model, count, seed=0, size=16):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, size, size), dtype=np.uint8)
    return CandidateSet("dp-sampling", model, "formal", images, rng.integers(0, 2, count, dtype=np.int64))


def approve(*sets):
    """What the gate does when it says yes."""
    return Approved(tuple(sets), verdict._seal_of(sets))


@pytest.fixture(scope="module")
def identity(tmp_path_factory):
    return create_identity(tmp_path_factory.mktemp("identity"), "north")


def sealed(identity, approved, plan=PLAN, policy=POLICY, certificate=CERTIFICATE):
    (data,) = seal(approved, plan, policy, certificate, identity.sign_package)
    return data


def opened(data, identity):
    return open_package(
        data,
        identity.signing_public,
        expected_site="north",
        expected_plan_hash=PLAN.digest,
        largest_bytes=10_000_000,
    )


def test_a_sealed_package_opens_and_holds_exactly_the_approved_pixels(identity):
    spectral, gan = candidates("spectral", 12, 1), candidates("gan", 30, 2)
    package = opened(sealed(identity, approve(spectral, gan)), identity)
    assert package.certificate == CERTIFICATE
    for item in (spectral, gan):
        held = {
            (decode_png(image.png).tobytes(), image.facts.label)
            for image in package.images()
            if image.facts.model == item.model
        }
        wanted = {(image.tobytes(), PLAN.labels[label]) for image, label in zip(item.images, item.labels, strict=True)}
        assert held == wanted
    assert {(image.facts.method, image.facts.guarantee) for image in package.images()} == {("dp-sampling", "formal")}


def test_names_and_order_are_random(identity):
    approved = approve(candidates("spectral", 12, 1), candidates("gan", 30, 2))
    first, second = (opened(sealed(identity, approved), identity) for _ in range(2))
    assert not {image.facts.name for image in first.images()} & {image.facts.name for image in second.images()}
    pixels = [[image.png for image in package.images()] for package in (first, second)]
    assert pixels[0] != pixels[1]
    assert sorted(pixels[0]) == sorted(pixels[1])
    models = [image.facts.model for image in first.images()]
    assert models not in (sorted(models), sorted(models, reverse=True))


@pytest.mark.parametrize("impostor", ["tuple", "subclass", "forged", "replaced", "altered"])
def test_nothing_but_an_intact_approval_is_sealed(identity, impostor):
    sets = (candidates("spectral", 12, 1), candidates("gan", 30, 2))
    approved = approve(*sets)

    class Bluff(Approved):
        def check(self):
            pass

    if impostor == "forged":
        thing = object.__new__(Approved)
        object.__setattr__(thing, "candidates", sets)
        object.__setattr__(thing, "_seal", bytes(32))
    elif impostor == "altered":
        thing = approved
        approved.candidates[1].images[3] = 7
    elif impostor == "replaced":
        thing = approved
        object.__setattr__(thing, "candidates", (sets[0], candidates("gan", 30, 3)))
    else:
        thing = sets if impostor == "tuple" else Bluff(sets, b"")
    with pytest.raises(ReleaseRefused):
        sealed(identity, thing)


@pytest.mark.parametrize(
    "sets",
    [
        [candidates("spectral", 12)],
        [candidates("spectral", 12), candidates("gan", 29)],
        [candidates("spectral", 12), candidates("gan", 30), candidates("flow", 1)],
        [candidates("spectral", 12), candidates("gan", 15), candidates("gan", 15)],
        [candidates("spectral", 12), candidates("gan", 30, size=32)],
        [
            candidates("spectral", 12),
            dataclasses.replace(candidates("gan", 30), images=np.zeros((30, 16, 16), np.uint16)),
        ],
        [candidates("spectral", 12), dataclasses.replace(candidates("gan", 30), labels=np.full(30, 2, np.int64))],
        [candidates("spectral", 12), dataclasses.replace(candidates("gan", 30), labels=np.full(30, -1, np.int64))],
        [candidates("spectral", 12), dataclasses.replace(candidates("gan", 30), method="other")],
    ],
    ids=["missing", "short", "extra", "split", "size", "depth", "label", "negative-label", "method"],
)
def test_only_exactly_what_the_plan_asks_for(identity, sets):
    with pytest.raises(ReleaseRefused):
        sealed(identity, approve(*sets))


def test_the_policy_has_the_last_word(identity):
    approved = approve(candidates("spectral", 12, 1), candidates("gan", 30, 2))
    for release in ({"largest_set": 41}, {"allowed_methods": []}):
        strict = POLICY.model_copy(update={"release": POLICY.release.model_copy(update=release)})
        with pytest.raises(PolicyRefusal):
            sealed(identity, approved, policy=strict)
    with pytest.raises(PolicyRefusal, match="noise"):
        sealed(identity, approved, certificate=CERTIFICATE.model_copy(update={"noise": "test"}))


def plan_with(item):
    return parse({**PLAN.model_dump(mode="json"), "release": [item]}, Plan, "plan")


def made(method, word, patients=5, spends=()):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (6, 16, 16), dtype=np.uint8)
    return CandidateSet(method, "gan", word, images, rng.integers(0, 2, 6, dtype=np.int64), patients, spends)


def test_a_set_is_sealed_with_its_own_promise_only(identity):
    allowed = POLICY.release.model_copy(update={"allowed_methods": ["k-same", "dp-k-average"]})
    policy = POLICY.model_copy(update={"release": allowed})
    groups = plan_with({"method": "k-same", "images": 6, "k": 5})
    average = plan_with({"method": "dp-k-average", "images": 6, "k": 5, "radius": 1.0, "noise_multiplier": 2.0})
    paid = (KAverageGaussian(2.0, 5),)
    for plan, good in ((groups, made("k-same", "syntactic")), (average, made("dp-k-average", "formal", 5, paid))):
        assert sealed(identity, approve(good), plan=plan, policy=policy)
    for plan, wrong in (
        (groups, made("k-same", "syntactic", patients=4)),
        (groups, made("k-same", "formal")),
        (average, made("dp-k-average", "formal", 5, ())),
        (average, made("dp-k-average", "formal", 5, (KAverageGaussian(1.0, 5),))),
        (average, made("dp-k-average", "formal", 5, paid * 2)),
        (average, made("dp-k-average", "syntactic")),
    ):
        with pytest.raises(ReleaseRefused):
            sealed(identity, approve(wrong), plan=plan, policy=policy)


def test_each_site_seals_its_own_number_of_images(identity):
    plan = plan_with({"model": "gan", "images": 30, "images_at": {"north": 6}})
    assert sealed(identity, approve(candidates("gan", 6)), plan=plan)
    with pytest.raises(ReleaseRefused):
        sealed(identity, approve(candidates("gan", 30)), plan=plan)


def test_anonymise_follows_the_release_request(monkeypatch):
    asked = []

    def images(plan, kind, arrays, labels, draws):
        asked.append((kind, arrays["name"], len(labels)))
        return np.zeros((len(labels), 16, 16), np.uint8)

    monkeypatch.setattr(sampling, "sample_images", images)
    monkeypatch.setattr(sampling, "component_shares", lambda plan, arrays, site: np.array([0.8, 0.2]))
    models = {kind: {"name": kind} for kind in ("spectral", "gan")}

    def made(plan, seed):
        streams, none = Streams.of(TestNoise(seed)), np.zeros(0, np.int64)
        nobody = Cohort(np.zeros((0, 16, 16), np.uint8), none, none)
        jobs = [
            Job(Release(plan, "alder", models, nobody), item, streams, NoiseRecorder(TestNoise(0), "entry"))
            for item in plan.release
        ]
        return [anonymise(job) for job in jobs]

    sets = made(PLAN, 5)
    assert asked == [("spectral", "spectral", 12), ("gan", "gan", 30)]
    assert [(item.method, item.model, item.guarantee) for item in sets] == [
        ("dp-sampling", "spectral", "formal"),
        ("dp-sampling", "gan", "formal"),
    ]
    again, other = made(PLAN, 5), made(PLAN, 6)
    assert all((a.labels == b.labels).all() for a, b in zip(sets, again, strict=True))
    assert any((a.labels != b.labels).any() for a, b in zip(sets, other, strict=True))
    many = PLAN.model_copy(update={"release": [PLAN.release[0].model_copy(update={"images": 4000})]})
    assert made(many, 1)[0].labels.mean() == pytest.approx(0.2, abs=0.03)


def test_every_method_that_a_plan_can_name_is_in_the_table():
    from typing import get_args

    from sfumato_common.study.release import AnyItem
    from sfumato_common.study.words import FILLS, Method

    named = {name for kind in get_args(AnyItem) for name in get_args(kind.model_fields["method"].annotation)}
    assert named - set(FILLS) == set(get_args(Method)) == set(ANONYMISERS)
    assert set(FILLS) <= named


def test_best_may_be_any_one_of_the_plans_models_and_only_one(identity):
    values = PLAN.model_dump(mode="json")
    values["stages"].append({"kind": "choice", "noise_multiplier": 1.0})
    best = parse({**values, "release": [{"model": "best", "images": 12}]}, Plan, "plan")
    for model in ("spectral", "gan"):
        package = open_package(
            sealed(identity, approve(candidates(model, 12)), plan=best),
            identity.signing_public,
            expected_site="north",
            expected_plan_hash=best.digest,
            largest_bytes=10_000_000,
        )
        assert {image.facts.model for image in package.images()} == {model}
    for sets in ([candidates("flow", 12)], [candidates("spectral", 6), candidates("gan", 6)], [candidates("gan", 11)]):
        with pytest.raises(ReleaseRefused):
            sealed(identity, approve(*sets), plan=best)
