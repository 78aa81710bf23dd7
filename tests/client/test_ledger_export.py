"""The exported ledger and the independent check of a certificate: another accountant, the same figures to 1e-3."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sfumato_client.ledger import Ledger
from sfumato_client.ledger.approvals import approval
from sfumato_client.ledger.chain import next_row
from sfumato_client.ledger.check import check_package
from sfumato_client.ledger.export import read_export
from sfumato_client.ledger.prv import LossDistribution, epsilon_prv, loss_distributions
from sfumato_common.accounting.accountant import count_mechanisms, epsilon
from sfumato_common.accounting.events import (
    AboveThreshold,
    ExponentialMechanism,
    GaussianRelease,
    KAverageGaussian,
    LaplaceRelease,
    LocalGaussian,
    LocalLaplace,
    RandomisedResponse,
    SampledGaussian,
)
from sfumato_common.crypto.identity import create_identity
from sfumato_common.errors import LedgerError, VerificationError
from sfumato_common.files import canonical_json
from sfumato_common.imaging import encode_png
from sfumato_common.package import PackageImage, build_package
from sfumato_common.package.manifest import ImageFacts
from sfumato_common.strict import parse
from sfumato_common.study.certificate import Certificate
from sfumato_common.study.costs import GATE_VERDICT, release_events, study_events
from sfumato_common.study.load import load_plan
from sfumato_common.study.policy import Budget

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
BUDGET = Budget(epsilon=20.0, delta=1e-5)
DELTA = 1e-5


def charge(ledger, plan, purpose, event, cohort="train", round=1):
    return ledger.reserve(
        study=plan.study, plan_hash=plan.digest, purpose=purpose, round=round, cohort=cohort, event=event,
        ahead=study_events(plan, cohort),
    )  # fmt: skip


@pytest.fixture(scope="module")
def identity(tmp_path_factory):
    return create_identity(tmp_path_factory.mktemp("identity") / "alder", "alder")


def package(identity, plan, certificate):
    picture = PackageImage(
        ImageFacts(name="ab" * 16, label="normal", model="gan", method="dp-sampling", guarantee="formal"),
        encode_png(np.zeros((16, 16), np.uint8)),
    )
    return build_package(
        site="alder", study=plan.study, plan_hash=plan.digest, certificate=certificate, images=[picture],
        sign=identity.sign_package,
    )  # fmt: skip


def carry_out(path, plan):
    """The export and the certificate of a ledger with all of `plan` but the utility figure, and another study."""
    with Ledger.open(path, BUDGET, site="alder") as ledger:
        other = plan.model_copy(update={"study": "another", "stages": plan.stages[:1]})
        charge(ledger, other, "spectral", GaussianRelease(4.0))
        for stage in plan.stages:
            for number in range(1, stage.rounds + 1):
                charge(ledger, plan, stage.kind, stage.event, round=number)
        for item in plan.release:
            for number, event in enumerate(release_events(plan, item), start=1):
                charge(ledger, plan, f"release-{item.method}", event, round=number)
        charge(ledger, plan, "gate", GATE_VERDICT)
        return ledger.export(), ledger.certificate(plan, noise="secure")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    plan = load_plan(CONFIGS / "demo.yaml")
    return plan, *carry_out(tmp_path_factory.mktemp("demo") / "ledger.sqlite", plan)


def test_a_certificate_recomputes_from_the_exported_ledger(demo, identity):
    plan, export, certificate = demo
    report = check_package(export, package(identity, plan, certificate), identity.signing_public)
    assert [figure.holds for figure in report.figures] == [True] * 18
    assert {figure.who for figure in report.figures} == {"train", "holdout", "patient"}
    assert (report.site, report.plan_hash, report.signature_checked) == ("alder", plan.digest, True)
    assert report.pending == 1  # the utility figure comes after the release, and is counted
    assert (report.approvals, report.approved) == (0, False)
    assert report.unsettled == 1 + 3 + 3 + 1 + 2 + 1  # nothing was noted as carried out here
    report.require()


def test_chest_xray_plan_recomputes_too(tmp_path, identity):
    plan = load_plan(CONFIGS / "chest-xray.yaml")
    export, certificate = carry_out(tmp_path / "ledger.sqlite", plan)
    report = check_package(export, package(identity, plan, certificate), None)
    assert all(figure.holds for figure in report.figures)
    assert not report.signature_checked


@pytest.mark.parametrize("name", ["add_remove", "replace_one", "add_remove_rdp"])
def test_an_epsilon_that_was_made_smaller_is_found(demo, identity, name):
    plan, export, certificate = demo
    value = certificate.model_dump()
    paid = value["epsilon"]["train"]
    paid[name] = 5.0 if name == "add_remove_rdp" else paid[name] - 2e-3
    forged = package(identity, plan, Certificate.model_validate(value))
    report = check_package(export, forged, identity.signing_public)
    assert [figure.holds for figure in report.figures].count(False) == 1
    with pytest.raises(LedgerError, match=r"train, .*recomputed"):
        report.require()


def test_a_certificate_that_leaves_out_a_charge_is_found(demo, identity):
    plan, export, certificate = demo
    lines = [line for line in certificate.mechanisms["train"] if line["mechanism"] != "GaussianRelease"]
    short = certificate.model_copy(update={"mechanisms": {**certificate.mechanisms, "train": lines}})
    with pytest.raises(LedgerError, match="more than the certificate states"):
        check_package(export, package(identity, plan, short), None)
    with pytest.raises(LedgerError, match="declared disclosure"):
        check_package(export, package(identity, plan, certificate.model_copy(update={"declared": []})), None)


def test_a_package_of_another_plan_site_or_key_is_refused(demo, identity, tmp_path):
    plan, export, certificate = demo
    other = plan.model_copy(update={"study": "never-run"})
    with pytest.raises(LedgerError, match="no charge under the certificate's plan"):
        check_package(export, package(identity, other, certificate), None)
    stranger = create_identity(tmp_path / "birch", "birch")
    with pytest.raises(VerificationError):
        check_package(export, package(identity, plan, certificate), stranger.signing_public)
    foreign = canonical_json({**json.loads(export), "site": "birch"})
    with pytest.raises(LedgerError, match="not the one of site"):
        check_package(foreign, package(identity, plan, certificate), None)


def test_an_export_is_canonical_whole_and_says_who_it_is_for(demo):
    plan, export, _ = demo
    value = json.loads(export)
    assert canonical_json(value) == export
    assert "data-protection officer" in value["notice"] and "stays in the site" in value["notice"]
    assert value["budget"] == {"epsilon": 20.0, "delta": 1e-5}
    assert len(value["rows"]) == 1 + 1 + (1 + 3 + 3 + 1) + 2 + 1
    charges = read_export(export).charges
    assert [entry.event for entry in charges if entry.plan_hash == plan.digest] == [
        *study_events(plan, "train"),
        GATE_VERDICT,
    ]
    spent = epsilon([entry.event for entry in charges], DELTA)
    assert spent <= value["spent"]["patient"]["add_remove"] <= spent + 1.1e-4


def change_row(value, number, **fields):
    body = {**json.loads(value["rows"][number]["body"]), **fields}
    value["rows"][number]["body"] = canonical_json(body).decode()


def rehash(value, number):
    """What a forger can do who knows the format: a row that fits behind the one before it."""
    from sfumato_client.ledger.chain import Row

    before = [Row(**row) for row in value["rows"][:number]]
    body = json.loads(value["rows"][number]["body"])
    row = next_row(before, body.pop("kind"), {key: item for key, item in body.items() if key != "number"})
    value["rows"][number] = {"number": row.number, "body": row.body, "hash": row.hash}


@pytest.mark.parametrize(
    "tamper",
    [
        lambda value: change_row(value, 3, round=9),
        lambda value: (change_row(value, 3, round=9), rehash(value, 3)),
        lambda value: value["rows"].pop(4),
        lambda value: value["rows"].pop(),
        lambda value: value["rows"].reverse(),
        lambda value: value["head"].update(hash="0" * 64),
        lambda value: value["head"].update(number=2, hash=value["rows"][2]["hash"]),
        lambda value: value.pop("head"),
        lambda value: value.update(rows=[]),
        lambda value: value.update(format="sfumato-ledger-export/2"),
        lambda value: value.update(more=1),
    ],
)
def test_a_tampered_export_is_refused(demo, tamper):
    value = json.loads(demo[1])
    tamper(value)
    with pytest.raises(LedgerError):
        read_export(canonical_json(value))


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_export_is_refused(data):
    with pytest.raises(LedgerError):
        read_export(data)


@pytest.mark.parametrize(
    "events",
    [
        [SampledGaussian(1.0, 0.01, 1000)],
        [SampledGaussian(3.0, 1.0, 4)],
        [KAverageGaussian(1.0, 5), SampledGaussian(1.1, 0.09, 40)],
        [LocalGaussian(1.7)] * 3 + [KAverageGaussian(2.0, 10)],
        [LaplaceRelease(3.3)] * 20 + [GaussianRelease(2.0)],
        [SampledGaussian(4.0, 0.5, 20)],
    ],
)
def test_two_accountants_agree(events):
    for adjacency in ("add-remove", "replace-one"):
        assert epsilon_prv(count_mechanisms(events), DELTA, adjacency) == pytest.approx(
            epsilon(events, DELTA, adjacency), abs=1e-3
        )


@pytest.mark.parametrize(
    "events",
    [
        [RandomisedResponse(2, 0.7)],
        [RandomisedResponse(9, 0.5)] * 3,
        [LocalLaplace(4.0)],
        [LocalLaplace(2.0), RandomisedResponse(7, 1.3)],
        [ExponentialMechanism(0.3)] * 4,
        [AboveThreshold(0.1), RandomisedResponse(2, 0.5), GaussianRelease(2.0), LocalLaplace(3.0)],
        [LocalLaplace(1.5), RandomisedResponse(3, 1.0), SampledGaussian(1.1, 0.09, 60)],
    ],
)
def test_pure_mechanisms_are_recomputed_beside_all_others(events):
    tally = count_mechanisms(events)
    rounded = 1e-4 * sum(not isinstance(event, GaussianRelease | SampledGaussian) for event in events)
    for adjacency in ("add-remove", "replace-one"):
        again = epsilon_prv(tally, DELTA, adjacency)
        assert 0.0 <= epsilon(events, DELTA, adjacency) - again + 1e-5 <= rounded + 2e-5


def test_exact_losses_have_the_closed_forms():
    # Warner's response is (epsilon, 0): below epsilon, delta is what its best event leaves
    single = loss_distributions(count_mechanisms([RandomisedResponse(2, 2.0)]), DELTA, "add-remove")[0]
    for at in (0.0, 0.5, 1.9, 2.0, 3.0):
        truth = np.exp(2.0) / (1.0 + np.exp(2.0))
        assert single.get_delta_for_epsilon(at) == pytest.approx(
            max(0.0, truth - np.exp(at) * (1.0 - truth)), abs=1e-12
        )
    # two of them (Kairouz et al. 2015, theorem 3): both true, or one of each, which tells nothing
    both = loss_distributions(count_mechanisms([RandomisedResponse(2, 2.0)] * 2), DELTA, "add-remove")[0]
    assert both.get_delta_for_epsilon(1.0) == pytest.approx(truth**2 - np.exp(1.0) * (1.0 - truth) ** 2, abs=1e-12)
    # beside a Gaussian: the mixture of its divergence at epsilon - 2 and at epsilon + 2
    gauss = loss_distributions(count_mechanisms([GaussianRelease(1.0)]), DELTA, "add-remove")[0]
    mixed = loss_distributions(
        count_mechanisms([GaussianRelease(1.0), RandomisedResponse(2, 2.0)]), DELTA, "add-remove"
    )[0]
    assert isinstance(mixed, LossDistribution)
    assert mixed.get_delta_for_epsilon(2.5) == pytest.approx(
        truth * gauss.get_delta_for_epsilon(0.5) + (1 - truth) * gauss.get_delta_for_epsilon(4.5), abs=1e-12
    )
    assert epsilon_prv(count_mechanisms([]), DELTA, "replace-one") == 0.0


def test_a_certificate_with_local_methods_is_checked_whole(tmp_path, identity):
    """The attack: one Laplace or randomised row, and every figure of the certificate went unchecked."""
    demo = load_plan(CONFIGS / "demo.yaml")
    values = demo.model_dump(mode="json")
    values["release"] = [
        {"model": "spectral", "images": 4},
        {"method": "dp-glow", "images": 4, "radius": 8.0, "epsilon": 1.0},
        {"method": "cadp", "images": 4, "radius": 8.0, "epsilon": 1.0, "label_epsilon": 0.5},
    ]
    plan = parse({**values, "budget": None, "privacy": {"epsilon": 20.0, "delta": DELTA}}, type(demo), "plan")
    export, certificate = carry_out(tmp_path / "ledger.sqlite", plan)
    lines = {line["mechanism"] for line in certificate.mechanisms["train"]}
    assert {"LocalLaplace", "RandomisedResponse", "SampledGaussian"} <= lines
    assert all(figure.holds for figure in check_package(export, package(identity, plan, certificate), None).figures)
    value = certificate.model_dump()
    value["epsilon"]["train"]["add_remove"] -= 2e-3
    forged = package(identity, plan, Certificate.model_validate(value))
    with pytest.raises(LedgerError, match="recomputed"):
        check_package(export, forged, None).require()


def test_approvals_in_the_export_are_verified(tmp_path, identity):
    plan = load_plan(CONFIGS / "demo.yaml")
    export, certificate = carry_out(tmp_path / "ledger.sqlite", plan)
    mine, another = package(identity, plan, certificate), b"another package"

    def approve(signer, data, part):
        with Ledger.open(tmp_path / "ledger.sqlite", BUDGET, site="alder") as ledger:
            ledger.approve(approval(plan.digest, part, "gate", data, ["cd" * 32], signer.sign_approval))
            return ledger.export()

    export = approve(identity, another, "declared")
    with pytest.raises(LedgerError, match="approved other packages"):
        check_package(export, mine, identity.signing_public)
    export = approve(identity, mine, "formal")
    report = check_package(export, mine, identity.signing_public)
    assert (report.approvals, report.approved) == (2, True)
    # what a forger who may write the ledger, and has no key of the site's, would add
    stranger = create_identity(tmp_path / "stranger", "alder")
    with Ledger.open(tmp_path / "ledger.sqlite", BUDGET, site="alder") as ledger:
        other = plan.model_copy(update={"study": "other"})
        ledger.approve(approval(other.digest, "formal", "gate", mine, ["cd" * 32], stranger.sign_approval))
        export = ledger.export()
    with pytest.raises(VerificationError, match="not signed with the site's key"):
        check_package(export, mine, identity.signing_public)
