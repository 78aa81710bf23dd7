"""`private: false`: only where a site's policy names the study, charged without end, and said on every page."""

import copy
import json
import math

import pytest
import yaml
from support.federations import make_federation
from support.studies import PLAN, POLICY
from typer.testing import CliRunner

from sfumato_client.cli.main import app as site_app
from sfumato_client.egress.guard import noised_reply
from sfumato_client.ledger.check import check_package
from sfumato_client.site.admission import admit
from sfumato_client.site.home import SiteHome
from sfumato_common.accounting.accountant import epsilon_text
from sfumato_common.accounting.events import Declared, GaussianRelease, LocalLaplace, SampledGaussian, Unprotected
from sfumato_common.crypto.identity import load_identity
from sfumato_common.errors import BudgetExceeded, ConfigError, EgressRefused, PolicyRefusal, VerificationError
from sfumato_common.files import write_atomic
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import BareRecorder
from sfumato_common.mechanisms.sealed import Paid
from sfumato_common.package import PackageImage, build_package
from sfumato_common.strict import parse
from sfumato_common.study.costs import WITHOUT_PRIVACY, study_events
from sfumato_common.study.forecast import forecast
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy
from sfumato_common.types import ArraySpec
from sfumato_server.cli.main import app as server_app
from sfumato_server.coordinator.study import run_study
from sfumato_server.enrol import Registry, load_authority
from sfumato_server.intake.admission import admit as admit_package
from sfumato_server.intake.admission import package_path
from sfumato_server.pool import pool_packages
from sfumato_server.publish import publish, verify_dataset, write_overview
from sfumato_server.status.overview import overview
from sfumato_server.status.view import render

OPEN = {
    **POLICY,
    "nonprivate_studies": ["tiny"],
    "noise": "secure",
    "release": {**POLICY["release"], "allowed_methods": ["dp-sampling", "dp-glow"]},
}


def bare_values():
    """The tiny study without privacy and without its slowest stage."""
    values = copy.deepcopy(PLAN)
    values["private"] = False
    values["sites"] = {site: values["sites"][site] for site in ("alder", "birch")}
    values["stages"] = [stage for stage in values["stages"] if stage["kind"] != "gan"]
    values["release"] = [item for item in values["release"] if item["model"] != "gan"]
    values["release"].append({"method": "dp-glow", "images": 4, "model": "flow", "radius": 300.0, "epsilon": 200.0})
    for stage in values["stages"]:
        stage["noise_multiplier"] = 0.001
    values["utility"]["noise_multiplier"] = 0.001
    return values


def run(federation):
    return run_study(federation.coordinator, federation, seed=1, classifier_steps=5)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    federation = make_federation(tmp_path_factory.mktemp("bare"), bare_values(), OPEN)
    assert run(federation) == "completed"
    return federation


@pytest.fixture(scope="module")
def published(study, tmp_path_factory):
    home, out = study.coordinator.root, tmp_path_factory.mktemp("out")
    pool = pool_packages(home, study.plan, Registry(home))
    publish(pool, study.plan, out, load_authority(home), {"exchanges": []}, study.result()["utility"])
    return out


def test_a_site_whose_policy_does_not_name_the_study_refuses_before_any_data(tmp_path, monkeypatch):
    federation = make_federation(tmp_path, bare_values(), {**POLICY, "nonprivate_studies": ["tiny-two"]})
    monkeypatch.setattr(SiteHome, "open_store", lambda self: pytest.fail("the data was opened"))
    assert run(federation) == "stopped"
    assert {reply.code for _, _, reply in federation.sent} == {PolicyRefusal.wire_code}
    for name in federation.sites:
        with federation.home(name).open_ledger() as ledger:
            assert ledger.entries() == []


def test_the_ledger_refuses_by_itself_whoever_asks(tmp_path):
    federation = make_federation(tmp_path, bare_values(), POLICY)
    with federation.home("alder").open_ledger() as ledger:
        for study in ("tiny", "other"):
            with pytest.raises(PolicyRefusal, match="nonprivate_studies"):
                ledger.reserve(
                    study=study, plan_hash="0" * 64, purpose="gan", round=1, cohort="train", event=Unprotected("gan")
                )
        assert ledger.entries() == []


def test_every_charge_is_unprotected_and_infinite(study):
    for name in study.sites:
        with study.home(name).open_ledger() as ledger:
            train = [event for event in ledger.events("train") if not isinstance(event, Declared)]
            assert train == study_events(study.plan, "train") == [*map(Unprotected, ("spectral", "flow", "dp-glow"))]
            assert math.isinf(ledger.spent_epsilon("train"))
            assert math.isinf(ledger.spent_epsilon("holdout"))
            exported = json.loads(ledger.export())
            ledger.verify()
        assert exported["without_privacy"] == ["tiny"]
        assert exported["spent"]["patient"] == dict.fromkeys(("add_remove", "add_remove_rdp", "replace_one"))


def test_no_private_study_fits_after_it(study):
    values = {**copy.deepcopy(PLAN), "study": "later"}
    plan, policy = parse(values, Plan, "plan"), parse({"site": "alder", **OPEN}, Policy, "policy")
    with study.home("alder").open_ledger() as ledger:
        with pytest.raises(BudgetExceeded, match="infinite"):
            admit(plan, policy, ledger)
        with pytest.raises(BudgetExceeded, match="infinite"):
            ledger.reserve(
                study="later", plan_hash=plan.digest, purpose="spectral", round=1, cohort="train",
                event=GaussianRelease(100.0),
            )  # fmt: skip


def test_packages_carry_a_certificate_that_promises_nothing(study):
    for name in study.sites:
        home = study.coordinator.root
        data = package_path(home, name, "declared").read_bytes()
        package = admit_package(data, study.plan, Registry(home).record_in_force(name))
        assert {image.facts.guarantee for image in package.images()} == {"heuristic"}
        stated = package.certificate
        assert stated.protection == WITHOUT_PRIVACY
        assert WITHOUT_PRIVACY in stated.covers
        assert all(value is None for value in stated.epsilon.patient.model_dump().values())
        with study.home(name).open_ledger() as ledger:
            report = check_package(ledger.export(), data, load_identity(study.home(name).identity).signing_public)
        report.require()
        assert not report.private
        assert all(figure.stated == math.inf and figure.holds for figure in report.figures)


def test_the_coordinator_admits_no_package_that_calls_such_images_formal(study):
    home, name = study.coordinator.root, "alder"
    record = Registry(home).record_in_force(name)
    package = admit_package(package_path(home, name, "declared").read_bytes(), study.plan, record)
    claimed = build_package(
        site=name, study=package.head.study, plan_hash=study.plan.digest, certificate=package.certificate,
        images=[PackageImage(i.facts.model_copy(update={"guarantee": "formal"}), i.png) for i in package.images()],
        sign=load_identity(study.home(name).identity).sign_package,
    )  # fmt: skip
    with pytest.raises(VerificationError, match="claims a guarantee"):
        admit_package(claimed, study.plan, record)


def strict(text: str):
    """JSON as the standard has it: no Infinity, no NaN."""
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} in a JSON file"))


def test_every_page_says_so(study, published, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    plan_file = tmp_path / "plan.yaml"
    write_atomic(plan_file, yaml.safe_dump(bare_values()))
    runner, alder = CliRunner(), str(study.home("alder").root)
    exported = tmp_path / "ledger.json"
    assert runner.invoke(site_app, ["ledger", "export", "--home", alder, "--out", str(exported)]).exit_code == 0
    package = str(package_path(study.coordinator.root, "alder", "declared"))
    pages = {
        "report": (published / "published" / "report.html").read_text(),
        "verify": verify_dataset(published / "published", None).summary(),
        "plan check": runner.invoke(server_app, ["plan", "check", str(plan_file)]).output,
        "ledger show": runner.invoke(site_app, ["ledger", "show", "--home", alder]).output,
        "ledger forecast": runner.invoke(site_app, ["ledger", "forecast", "--home", alder, str(plan_file)]).output,
        "ledger check": runner.invoke(site_app, ["ledger", "check", str(exported), package, "--home", alder]).output,
        "accept": runner.invoke(site_app, ["accept", "--home", alder, str(plan_file), "--yes"]).output,
        "utility": json.dumps(study.result()["utility"]),
    }
    for page, text in pages.items():
        assert WITHOUT_PRIVACY in " ".join(text.split()), (page, text)
    status = overview(study.coordinator.root, study.plan)
    assert "without differential privacy" in str(render(status).renderables)
    said = " ".join(pages["plan check"].split())
    assert said.startswith("eps_total 200 at delta 0: the noise of 'dp-glow' alone; heuristic, no guarantee")
    assert "of 40" not in pages["report"]  # the plan's own epsilon means nothing here


def test_json_files_are_strict_json(study, published):
    files = [*published.rglob("*.json"), *study.coordinator.root.rglob("*.json")]
    assert len(files) > 4
    for path in files:
        strict(path.read_text())


def test_the_overview_carries_the_sentence_in_the_picture(published, tmp_path):
    from PIL import Image

    write_overview(published / "published", tmp_path / "overview.png")
    with Image.open(tmp_path / "overview.png") as picture:
        assert picture.convert("RGB").getpixel((1, 1)) == (0x8C, 0x1C, 0x13)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values["stages"][0].update(noise_multiplier=1.0),
        lambda values: values["utility"].update(noise_multiplier=1.0),
        lambda values: values.update(budget="auto"),
    ],
)
def test_a_plan_without_privacy_may_not_look_private(change):
    values = bare_values()
    change(values)
    with pytest.raises(ConfigError, match="private: false"):
        parse(values, Plan, "plan")


def test_a_forecast_has_no_finite_epsilon_and_no_noise():
    cost = forecast(parse(bare_values(), Plan, "plan"), 1e-5)
    assert not cost.private
    assert {line.stage: line.noise_multiplier for line in cost.stages} == {
        "spectral": 0.0,
        "flow": 0.0,
        "release": None,
    }
    assert {epsilon_text(line.epsilon_after) for line in cost.stages} == {"infinite"}
    assert math.isinf(cost.totals.patient.add_remove_rdp)


def test_a_bare_meter_passes_sums_as_they_are_and_never_for_another_charge():
    import numpy as np

    sums = np.arange(4, dtype=np.float32)
    recorder, schema = BareRecorder("flow", "entry"), {"a": ArraySpec("float32", (4,))}
    paid = Paid((Unprotected("flow"),), "entry")
    with pytest.raises(EgressRefused, match="no mechanism ran"):
        noised_reply(BareRecorder("flow", "entry").seal_result({"a": sums}), schema, paid)
    assert np.array_equal(recorder.sampled_gaussian(sums, 1e-9, 100.0, 0.1), sums)
    assert np.array_equal(recorder.gaussian(sums, 1e-9, 100.0), sums)
    sealed = recorder.seal_result({"a": sums})
    with pytest.raises(EgressRefused, match="after the result was sealed"):
        recorder.gaussian(sums, 1.0, 1.0)
    noised_reply(sealed, schema, paid)
    for event in (SampledGaussian(100.0, 0.1, 1), GaussianRelease(100.0), Unprotected("gan")):
        with pytest.raises(EgressRefused, match="not the one"):
            noised_reply(sealed, schema, Paid((event,), "entry"))
    rows = np.zeros((2, 3))
    for record in (
        lambda: recorder.local_laplace(rows, 1.0, 1.0, "l1"),
        lambda: recorder.local_gaussian(rows, 1.0, 1.0),
        lambda: recorder.k_average(rows[None], 1.0, 1.0),
        lambda: recorder.randomised_response(np.zeros(2, dtype=np.int64), 2, 1.0),
    ):
        with pytest.raises(EgressRefused, match="without privacy"):
            record()


def test_a_bare_meter_with_noise_noises_single_records_and_calls_them_bare():
    import numpy as np

    recorder, rows = BareRecorder("dp-glow", "entry", TestNoise(1)), np.zeros((2, 3))
    assert recorder.executed == ()
    assert recorder.local_laplace(rows, 1.0, 1.0, "l1").std() > 0.5
    assert recorder.local_gaussian(rows, 1.0, 1.0).std() > 0.5
    recorder.randomised_response(np.zeros(2, dtype=np.int64), 2, 1.0)
    assert recorder.executed == (Unprotected("dp-glow"),)
    with pytest.raises(EgressRefused, match="without privacy"):
        recorder.k_average(rows[None], 1.0, 1.0)
    sealed = recorder.seal_result({"a": rows})
    with pytest.raises(EgressRefused, match="not the one"):
        noised_reply(sealed, {"a": ArraySpec("float64", (2, 3))}, Paid((LocalLaplace(1.0),), "entry"))
