"""A published set gets a second version: a patient withdrew, a site left, one joins; models are given, packages kept."""

import copy
import json
import shutil

import pytest
from support.commands import speaker
from support.federations import Federation, make_federation, make_site
from support.studies import PLAN, POLICY

from sfumato_client.dataset import SiteStore
from sfumato_client.site.handler import Site
from sfumato_common.accounting.accountant import epsilon
from sfumato_common.crypto.identity import load_identity
from sfumato_common.errors import ConfigError, PolicyRefusal, VerificationError
from sfumato_common.protocol.messages import PROTOCOL, Request
from sfumato_common.strict import parse
from sfumato_common.study.costs import study_events
from sfumato_common.study.lineage import plan_of_site, version_of
from sfumato_common.study.load import load_plan
from sfumato_common.study.plan import Plan
from sfumato_server.coordinator.rerelease import Changes, make_home, plan_rerelease
from sfumato_server.coordinator.study import run_study
from sfumato_server.enrol import Registry, load_authority
from sfumato_server.pool import pool_packages
from sfumato_server.publish import publish, verify_dataset
from sfumato_server.publish.versions import note_version, read_status
from sfumato_server.rounds.given import load_given

VALUES = {**copy.deepcopy(PLAN), "release": [{"model": "spectral", "images": 12}, {"model": "flow", "images": 8}]}
SECURE = {**POLICY, "noise": "secure"}
CHANGES = Changes(left=("birch",), again=("alder",), join={"dahlia": 40})


def published(federation, out):
    """What `coordinator run` does after the rounds."""
    root, plan = federation.coordinator.root, federation.coordinator.plan()
    authority, result = load_authority(root), federation.result()
    pool = pool_packages(root, plan, Registry(root))
    made = publish(pool, plan, out, authority, {"exchanges": result["exchanges"]}, result["utility"])
    note_version(federation.coordinator.versions_file, authority, plan, made.manifest_sha256)
    return made


def run(federation):
    return run_study(federation.coordinator, federation, seed=1, classifier_steps=5)


def charges(home, digest=None):
    with home.open_ledger() as ledger:
        ledger.verify()
        assert ledger.unsettled_charges() == []
        return [entry for entry in ledger.entries() if digest in (None, entry.plan_hash)]


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """(first federation, its published set, second federation, its published set)."""
    root = tmp_path_factory.mktemp("versions")
    first = make_federation(root / "one", VALUES, SECURE)
    assert run(first) == "completed"
    one = published(first, root / "out-1")
    made = plan_rerelease(first.coordinator, one.manifest_sha256, CHANGES)
    coordinator = make_home(first.coordinator, root / "coordinator-2", made)
    second = Federation(root / "one", made.plan, coordinator, {})
    alder = first.home("alder")
    alder.pin(load_plan(coordinator.root / "plan.yaml"))
    from sfumato_server.simulate.home import take_package

    second.sites["alder"] = Site(alder, lambda data, plan: take_package(coordinator, made.plan, "alder", data))
    second.sites["dahlia"] = make_site(root / "one", "dahlia", coordinator, made.plan, SECURE)
    before = {site: charges(first.home(site)) for site in first.sites}
    assert run(second) == "completed", second.result()
    two = published(second, root / "out-2")
    return first, one, second, two, before


def test_the_second_version_trains_nothing_and_holds_what_the_changes_say(versions):
    first, one, second, two, _ = versions
    asked = {request.kind for _, request, _ in second.sent}
    assert "stage" not in asked, "the models are given"
    assert {site for site, _, _ in second.sent} == {"alder", "dahlia"}, "kept sites are asked nothing"
    report = verify_dataset(two.folder, None)
    assert set(report.sites) == {"alder", "birch", "cedar", "dahlia"}
    manifests = [json.loads((made.folder / "manifest.json").read_text()) for made in (one, two)]
    names = [{site: {i["name"] for i in m["images"] if i["site"] == site} for site in report.sites} for m in manifests]
    for site in ("birch", "cedar"):
        assert names[0][site] == names[1][site], "kept as they were"
    assert not names[0]["alder"] & names[1]["alder"], "made again"
    models = load_given(second.coordinator.given, second.plan)
    assert set(models) == {"spectral", "gan", "flow"}


def test_nothing_that_was_charged_is_refunded_and_the_new_version_charges_its_own_alone(versions):
    first, _, second, _, before = versions
    for site in ("birch", "cedar"):
        assert charges(first.home(site)) == before[site], "kept sites pay nothing"
    after = charges(first.home("alder"))
    assert after[: len(before["alder"])] == before["alder"]
    assert {entry.purpose for entry in after[len(before["alder"]) :]} == {"utility"}, "sampling is post-processing"
    with first.home("alder").open_ledger() as ledger:
        total = ledger.spent_epsilon("train")
        assert total == pytest.approx(epsilon(study_events(first.plan, "train"), ledger.budget.delta))
    assert [entry.purpose for entry in charges(second.home("dahlia"))] == ["utility"]


def test_certificates_say_what_the_given_models_cost_and_where_it_was_paid(versions):
    first, one, second, two, _ = versions
    root = second.coordinator.root
    pool = pool_packages(root, second.plan, Registry(root))
    own, kept = pool.certificates["dahlia"], pool.certificates["cedar"]
    assert kept.trained is None
    assert own.trained.plan_hash == first.plan.study_digest
    assert own.trained.epsilon == kept.epsilon
    assert own.epsilon.train.add_remove == 0.0
    assert "given to this one" in own.covers
    html = (two.folder / "report.html").read_text()
    assert first.plan.study_digest[:16] in html, "the report names the study that paid for the models"


def test_a_site_takes_no_other_model_than_the_plan_pins_and_trains_none(versions):
    _, _, second, _, _ = versions
    site, plan = second.sites["dahlia"], second.plan
    request = next(r for s, r, _ in second.sent if s == "dahlia" and r.kind == "make")
    name = next(name for name in request.arrays if name.startswith("flow:"))
    other = {**request.arrays, name: request.arrays[name] * 1.0001}
    for changed in (
        Request(PROTOCOL, plan.digest, "make", "", 0, other),
        Request(PROTOCOL, plan.digest, "stage", "spectral", 1, {}),
    ):
        reply = site.handle(changed)
        assert reply.status == "refused"
        text = (site.home.steward_folder / "errors" / f"{reply.reference}.txt").read_text()
        assert "given" in text
    assert [entry.purpose for entry in charges(site.home)] == ["utility"]


def test_the_status_file_says_which_version_is_current(versions):
    first, one, second, two, _ = versions
    key = load_authority(first.coordinator.root).public_key
    found = read_status(second.coordinator.versions_file.read_bytes(), key)
    old, new = found.version(one.manifest_sha256), found.version(two.manifest_sha256)
    assert (old.state, old.superseded_by, new.state, new.number) == ("superseded", 2, "current", 2)
    assert [(stone.site, stone.what, stone.images) for stone in new.tombstones] == [("birch", "site-left", "stay")]


def test_a_third_version_builds_on_the_second(versions, tmp_path):
    first, _, second, two, _ = versions
    made = plan_rerelease(second.coordinator, two.manifest_sha256, Changes(withdrew=("cedar",), again=("dahlia",)))
    assert version_of(made.plan) == 3
    assert made.plan.lineage.trained == first.plan.study_digest
    assert set(made.plan.lineage.keep) == {"alder", "birch"}
    assert plan_of_site(made.plan, "birch").digest == first.plan.digest
    assert plan_of_site(made.plan, "alder").digest == second.plan.digest
    assert made.plan.lineage.plans[second.plan.digest]["lineage"]["plans"] == {}, "not one within the other"


def test_a_version_that_asks_nobody_is_a_plan_too(versions):
    first, one, _, _, _ = versions
    made = plan_rerelease(first.coordinator, one.manifest_sha256, Changes(withdrew=("cedar",)))
    assert made.plan.sites == {}
    assert set(made.plan.lineage.keep) == {"alder", "birch"}
    assert all(line.epsilon == 0.0 for line in made.lines)


def test_training_again_asks_every_site_and_costs_the_whole_plan(versions):
    first, one, _, _, _ = versions
    made = plan_rerelease(first.coordinator, one.manifest_sha256, Changes(withdrew=("cedar",), retrain=True))
    assert set(made.plan.sites) == {"alder", "birch"}
    assert made.plan.lineage.models == {}
    paid = {line.who: line.epsilon for line in made.lines}
    whole = epsilon(study_events(first.plan, "train"), first.plan.privacy.delta)
    assert paid["alder"] == pytest.approx(whole, abs=1e-3)
    assert paid["cedar"] == 0.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (Changes(again=("zinnia",)), "--again names 'zinnia'"),
        (Changes(join={"alder": 40}), "--join names 'alder'"),
        (Changes(left=("alder",), again=("alder",)), "named twice"),
        (Changes(withdrew=("alder", "birch", "cedar")), "needs sites that are asked"),
    ],
)
def test_changes_that_mean_nothing_are_refused_with_words(versions, changes, words):
    first, one, _, _, _ = versions
    with pytest.raises(ConfigError, match=words):
        plan_rerelease(first.coordinator, one.manifest_sha256, changes)


def test_models_of_test_noise_are_not_given(tmp_path):
    made = make_federation(tmp_path, {**VALUES, "utility": None}, POLICY)
    assert run(made) == "completed"
    with pytest.raises(ConfigError, match="test noise"):
        plan_rerelease(made.coordinator, "0" * 64, Changes(again=("alder",)))


def test_a_site_tells_of_a_patient_who_withdrew_only_by_its_own_policy(versions, tmp_path):
    first, one, _, _, _ = versions
    from sfumato_client.site.admission import check_policy

    made = plan_rerelease(first.coordinator, one.manifest_sha256, Changes(withdrawn_patients=("alder",)))
    home = first.home("alder")
    with pytest.raises(PolicyRefusal, match="'withdrawals' must allow it"):
        check_policy(made.plan, home.policy())
    check_policy(made.plan, home.policy().model_copy(update={"withdrawals": "told"}))
