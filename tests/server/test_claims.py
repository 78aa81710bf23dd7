"""Certificates that a hostile site may sign: none enters that misstates the cost, or breaks a page."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from support.plans import dp_sgd
from support.small_study import VALUES

from sfumato_client.ledger.certificate import certificate
from sfumato_common.errors import VerificationError
from sfumato_common.package import open_package
from sfumato_common.package.archive import read_archive, write_archive
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.intake.admission import admit
from sfumato_server.intake.claims import check_claims
from sfumato_server.publish import publish, verify_dataset

from .test_pool import store
from .test_publish import RUN


def small_plan(**changes: Any) -> Plan:
    return parse({**copy.deepcopy(VALUES), **changes}, Plan, "plan")


RELEASES = [
    [{"model": "flow", "images": 4}],
    [{"method": "k-salsa", "images": 3, "k": 5}, {"model": "spectral", "images": 4}],
    [{"method": "dp-glow", "images": 4, "mechanism": "gaussian", "clip": "l2", "radius": 8, "noise_multiplier": 4}],
]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("noise", ["secure", "test"])
def test_what_a_sites_own_ledger_states_enters(release: Any, noise: Any) -> None:
    gan = dp_sgd(kind="gan", width=8, generator_steps=2, fakes=8)
    plan = small_plan(stages=[*VALUES["stages"], gan], release=release, utility={"bins": 8, "noise_multiplier": 2.0})
    check_claims(certificate(plan, [], [], noise), plan)


def test_without_privacy_it_states_nothing_and_enters() -> None:
    values = copy.deepcopy(VALUES)
    values["stages"] = [{**stage, "noise_multiplier": 0.0005} for stage in values["stages"]]
    plan = parse({**values, "private": False}, Plan, "plan")
    check_claims(certificate(plan, [], [], "secure"), plan)
    private = small_plan()
    with pytest.raises(VerificationError, match="about privacy"):
        check_claims(certificate(plan, [], [], "secure").model_copy(update={"delta": private.privacy.delta}), private)


def epsilons(factor: float) -> dict[str, Any]:
    paid = {"add_remove": 1.6981 * factor, "add_remove_rdp": 1.8801 * factor, "replace_one": 3.8045 * factor}
    return {"train": paid, "holdout": dict.fromkeys(paid, 0.0), "patient": paid}


GAUSSIAN = {"mechanism": "GaussianRelease", "noise_multiplier": 2.0, "times": 1}


def stated(consortium: Any, **changes: Any) -> Any:
    return consortium.certificate(reach={**consortium.certificate().reach.model_dump(), **changes})


def test_ceilings_of_attacks_are_held_against_the_plan_too(consortium: Any) -> None:
    plan, honest = consortium.plan, consortium.certificate()
    check_claims(honest, plan)
    points = honest.reach.model_dump()
    lower = [{**points["epsilons"][0], "epsilon": 0.0}, *points["epsilons"][1:]]
    for changes in ({"auc": 0.5}, {"mu": 0.1}, {"epsilons": lower}, {"pair": 0.5}):
        with pytest.raises(VerificationError, match="a lower ceiling"):
            check_claims(stated(consortium, **changes), plan)
    for changes in ({"epsilons": points["epsilons"][1:]}, {"attack": []}):
        with pytest.raises(VerificationError, match="ceiling"):
            check_claims(stated(consortium, **changes), plan)
    with pytest.raises(VerificationError, match="states ceilings"):
        check_claims(consortium.certificate(reach=None), plan)
    check_claims(consortium.certificate(site_total=epsilons(2.0)), plan)
    with pytest.raises(VerificationError, match="total below"):
        check_claims(consortium.certificate(site_total=epsilons(0.5)), plan)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"epsilon": epsilons(0.0)}, "less than the plan"),
        ({"epsilon": epsilons(0.99)}, "less than the plan"),
        ({"epsilon": epsilons(1.01)}, "more than the plan"),
        ({"epsilon": {**epsilons(1.0), "patient": epsilons(0.5)["patient"]}}, "less than the plan"),
        ({"epsilon": epsilons(0.0), "mechanisms": {"train": [], "holdout": []}}, "other mechanisms for the train"),
        ({"mechanisms": {"train": [{**GAUSSIAN, "noise_multiplier": 4.0}], "holdout": []}}, "other mechanisms"),
        ({"mechanisms": {"train": [GAUSSIAN, GAUSSIAN], "holdout": []}}, "other mechanisms"),
        ({"mechanisms": {"train": [GAUSSIAN], "holdout": [GAUSSIAN]}}, "for the holdout"),
        ({"delta": 1e-2}, "another delta"),
        ({"starts": {"flow": {"source": "phantom", "sha256": "0" * 64}}}, "public starts"),
    ],
)
def test_a_certificate_that_is_not_what_the_plan_costs_is_refused(
    consortium: Any, changes: dict[str, Any], match: str
) -> None:
    record = consortium.registry.record_in_force("north")
    admit(consortium.package("north", certificate=consortium.certificate()), consortium.plan, record)
    with pytest.raises(VerificationError, match=match):
        admit(consortium.package("north", certificate=consortium.certificate(**changes)), consortium.plan, record)


def test_a_certificate_that_leaves_out_a_declared_disclosure_is_refused() -> None:
    gan = dp_sgd(kind="gan", width=8, generator_steps=2, fakes=8)
    plan = small_plan(stages=[*VALUES["stages"], gan], release=RELEASES[1])
    honest = certificate(plan, [], [], "secure")
    assert len(honest.declared) == 2
    for place in range(2):
        fewer = [item for at, item in enumerate(honest.declared) if at != place]
        with pytest.raises(VerificationError, match="leaves out a declared"):
            check_claims(honest.model_copy(update={"declared": fewer}), plan)


def nested(depth: int) -> Any:
    return json.loads("[" * depth + "]" * depth)


HOSTILE: list[dict[str, Any]] = [
    {"mechanisms": {"train": [{**GAUSSIAN, "noise_multiplier": 10**400}], "holdout": []}},
    {"mechanisms": {"train": [{**GAUSSIAN, "times": 10**400}], "holdout": []}},
    {"mechanisms": {"train": [{**GAUSSIAN, "noise_multiplier": nested(200)}], "holdout": []}},
    {"mechanisms": {"train": [{**GAUSSIAN, "x": 1.0}], "holdout": []}},
    {"mechanisms": {"train": [{"mechanism": "<b>"}], "holdout": []}},
    {"mechanisms": {"train": [{"mechanism": "Unprotected", "what": "a\u202eb"}], "holdout": []}},
    {"mechanisms": {"train": [GAUSSIAN] * 1001, "holdout": []}},
    {"declared": [{"what": "x", "bits": 10**400}]},
    {"declared": [{"what": "x", "bits": -5}]},
    {"declared": [{"what": "x" * 301, "bits": 1}]},
    {"declared": [{"what": "x", "bits": 1}] * 101},
    {"epsilon": epsilons(1e308 / 4)},
    {"epsilon": epsilons(float("inf"))},
    {"covers": "A" * 3_900_000},
    {"covers": "safe \u202e gnp.exe"},
    {"covers": "a\x00b"},
    {"covers": "two\nlines"},
    {"covers": ""},
    {"noise": "loud"},
]


@pytest.mark.parametrize("changes", HOSTILE)
def test_what_is_not_finite_bounded_and_printable_is_no_certificate(consortium: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        consortium.certificate(**changes)
    # and so in a package that such a site signs itself, with nothing of ours in between
    with pytest.raises(VerificationError, match="malformed"):
        open_package(
            forged(consortium, changes),
            consortium.identities["north"].signing_public,
            expected_site="north",
            expected_plan_hash=consortium.plan.digest,
            largest_bytes=1 << 30,
        )


def forged(consortium: Any, changes: dict[str, Any]) -> bytes:
    members = read_archive(consortium.package("north"))
    manifest = json.loads(members["manifest.json"])
    manifest["certificate"] |= changes
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    signature = consortium.identities["north"].sign_package(text)
    return write_archive({**members, "manifest.json": text, "manifest.sig": signature})


def test_publishing_goes_on_without_a_site_whose_certificate_lies(consortium: Any, tmp_path: Any) -> None:
    for site in ("north", "south"):
        store(consortium, site)
    store(consortium, "east", forged(consortium, {"declared": [{"what": "x", "bits": 10**400}]}))
    from sfumato_server.pool import pool_packages

    pool = pool_packages(consortium.home, consortium.plan, consortium.registry)
    done = publish(pool, consortium.plan, tmp_path / "out", consortium.authority, RUN, None)
    assert done.left_out == {"east": "what it sent does not hold"}
    assert verify_dataset(done.folder).sites == ("north", "south")
    text = done.report.read_text()
    assert "east" in text and "what it sent does not hold" in text
    manifest = json.loads((done.folder / "manifest.json").read_text())
    assert manifest["left_out"] == {"east": "what it sent does not hold"}
