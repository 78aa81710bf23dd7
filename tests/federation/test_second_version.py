"""A published set gets a second version: a patient withdrew, a site left, one joins; models given, packages kept."""

import copy
import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from support.federations import Federation, make_federation, make_site
from support.studies import PLAN, POLICY

from sfumato_client.dataset import SiteStore
from sfumato_client.dataset.splits import keyed_split
from sfumato_client.ingest import Answers
from sfumato_client.ingest.sources import PngSource
from sfumato_client.ledger.check import check_package
from sfumato_client.site.handler import Site
from sfumato_client.site.ingesting import ingest_source, update_source
from sfumato_common.accounting.accountant import epsilon
from sfumato_common.accounting.members import pseudonym
from sfumato_common.crypto.identity import load_identity
from sfumato_common.errors import ConfigError, PolicyRefusal
from sfumato_common.phantom import arrays
from sfumato_common.protocol.messages import PROTOCOL, Request
from sfumato_common.strict import parse
from sfumato_common.study.costs import study_events
from sfumato_common.study.lineage import plan_of_site, version_of
from sfumato_common.study.load import load_plan
from sfumato_common.study.plan import Plan
from sfumato_server.coordinator.rerelease import Changes, make_home, plan_rerelease
from sfumato_server.coordinator.study import run_study
from sfumato_server.enrol import Registry, load_authority
from sfumato_server.intake.admission import package_path
from sfumato_server.pool import pool_packages
from sfumato_server.pool.withdrawn import read_withdrawn
from sfumato_server.publish import convert, open_folder, publish, verify_dataset
from sfumato_server.publish.versions import lines_of_holder, note_version, read_status, standing_of
from sfumato_server.rounds.given import load_given
from sfumato_server.simulate.home import take_package

VALUES = {**copy.deepcopy(PLAN), "release": [{"model": "spectral", "images": 12}, {"model": "flow", "images": 8}]}
SECURE = {**POLICY, "noise": "secure"}
GROUPED = {"method": "k-same", "images": 4, "k": 2, "encoder_steps": 2, "refinement_steps": 1}
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
    second.sites["alder"] = Site(alder, lambda data, plan: take_package(coordinator, made.plan, "alder", data))
    second.sites["dahlia"] = make_site(root / "one", "dahlia", coordinator, made.plan, SECURE)
    before = {site: charges(first.home(site)) for site in first.sites}
    assert run(second) == "completed", second.result()
    two = published(second, root / "out-2")
    return first, one, second, two, before


def _names(folder, sites):
    entries = list(open_folder(folder).entries())
    return {site: {entry.name for entry in entries if entry.site == site} for site in sites}


def test_the_second_version_trains_nothing_and_holds_what_the_changes_say(versions):
    _, one, second, two, _ = versions
    asked = {request.kind for _, request, _ in second.sent}
    assert "stage" not in asked, "the models are given"
    assert {site for site, _, _ in second.sent} == {"alder", "dahlia"}, "kept sites are asked nothing"
    report = verify_dataset(two.folder, None)
    assert set(report.sites) == {"alder", "birch", "cedar", "dahlia"}
    names = [_names(made.folder, report.sites) for made in (one, two)]
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


def test_what_covers_an_image_of_given_models_holds_what_training_them_cost(versions):
    _, _, _, two, _ = versions
    paid = open_folder(two.folder).certificates()["dahlia"]
    rows = list(csv.DictReader((two.folder / "labels.csv").open()))
    covered = {float(row["epsilon"]) for row in rows if row["guarantee"] == "formal"}
    most = paid.trained.epsilon.patient.add_remove + paid.epsilon.patient.add_remove
    assert len(covered) == 1 and min(covered) >= round(most, 4) > paid.epsilon.patient.add_remove


def test_certificates_say_what_the_given_models_cost_and_where_it_was_paid(versions):
    first, _, second, two, _ = versions
    root = second.coordinator.root
    pool = pool_packages(root, second.plan, Registry(root))
    own, kept = pool.certificates["dahlia"], pool.certificates["cedar"]
    assert kept.trained is None
    assert own.trained.plan_hash == first.plan.study_digest
    assert own.trained.epsilon == kept.epsilon
    assert own.epsilon.train.add_remove == 0.0
    assert "given to this one" in own.covers
    for site in ("alder", "dahlia"):
        home = second.home(site)
        with home.open_ledger() as ledger:
            export = ledger.export()
        package = package_path(root, site, "formal").read_bytes()
        found = check_package(export, package, load_identity(home.identity).signing_public)
        found.require()
        assert (found.pending, found.approved) == (0, True)
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


def test_who_holds_the_old_set_or_one_converted_from_it_is_told_what_the_new_one_says(versions, tmp_path):
    _, one, second, two, _ = versions
    status, seen = second.coordinator.versions_file, tmp_path / "seen.json"
    convert(one.folder, "png", tmp_path / "png")
    for held in (one.folder, tmp_path / "png"):
        own, later = standing_of(held, status, None, seen)
        assert (own.number, [new.number for new in later]) == (1, [2])
        said = "\n".join(lines_of_holder(own, later))
        assert "superseded by version 2" in said and "use version 2" in said
        assert "said of later versions" in said and "birch: site-left, its images stay" in said
    own, later = standing_of(two.folder, status, None, seen)
    assert later == () and "use version" not in "\n".join(lines_of_holder(own, later))


def test_a_third_version_builds_on_the_second(versions, tmp_path):
    first, _, second, two, _ = versions
    made = plan_rerelease(second.coordinator, two.manifest_sha256, Changes(withdrew=("cedar",), again=("dahlia",)))
    assert version_of(made.plan) == 3
    assert made.plan.lineage.trained == first.plan.study_digest
    assert set(made.plan.lineage.keep) == {"alder", "birch"}
    assert plan_of_site(made.plan, "birch").digest == first.plan.digest
    assert plan_of_site(made.plan, "alder").digest == second.plan.digest
    coordinator = make_home(second.coordinator, tmp_path / "coordinator-3", made)
    pool = pool_packages(coordinator.root, coordinator.plan(), Registry(coordinator.root))
    assert set(pool.sites) == {"alder", "birch"}
    assert pool.left_out == {"dahlia": "sent no package"}
    assert made.plan.lineage.plans[second.plan.digest]["lineage"]["plans"] == {}, "not one within the other"
    gone = _names(two.folder, ["cedar"])["cedar"]
    assert len(read_withdrawn(coordinator.root)) == len(gone), "what cedar had made does not come again, nor nearly"
    assert read_withdrawn(second.coordinator.root) is None, "birch left, and withdrew nothing"


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


# a patient withdraws when the study is over


def folder_of(root, name, patients=40, size=24):
    """A site's source: pictures of phantom patients, and their table."""
    images, labels, owners = arrays(sum(name.encode()), patients, size)
    root.mkdir()
    rows = ["file,patient_id,label"]
    for number, (pixels, label, owner) in enumerate(zip(images, labels, owners, strict=True)):
        grey = np.clip((pixels + 1.0) * 127.5, 0, 255).astype(np.uint8).reshape(size, size)
        Image.fromarray(grey).save(root / f"{number}.png")
        rows.append(f"{number}.png,{name}-{owner},{PLAN['labels'][int(label)]}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return PngSource(kind="png", folder=root, labels=root / "labels.csv", answers=Answers(gone="remove"))


def test_who_withdrew_after_the_study_is_in_no_later_question_and_stays_in_the_ledger(tmp_path, monkeypatch):
    gate = {**SECURE["release"]["gate"], "identity_share_limit": 1.0, "copy_share_limit": 1.0}
    rules = {"allowed_methods": ["dp-sampling", "k-same"], "smallest_group": 2, "gate": gate}
    policy = {**SECURE, "release": {**SECURE["release"], **rules}}
    values = {**VALUES, "stages": PLAN["stages"][:2], "release": PLAN["release"][:1], "utility": None}
    first = make_federation(tmp_path, values, policy)
    alder = first.home("alder")
    source = folder_of(tmp_path / "pictures", "alder")
    shutil.rmtree(alder.store)
    ingest_source(alder, source, first.plan, 1)
    key = alder.split_key()
    gone = next(f"alder-{n}" for n in range(40) if keyed_split(key, f"alder-{n}") == "train")
    withdrawn = source.model_copy(update={"withdrawn": [gone]})
    exchange, refused = first.exchange, []

    def watched(requests, *rest):
        exchange(requests, *rest)
        if first.sent[-1][1].kind == "stage":  # its rounds and its release see one cohort
            with pytest.raises(PolicyRefusal, match="has begun here"):
                update_source(alder, withdrawn, first.plan, 1)
            refused.append(True)

    first.exchange = watched
    assert run(first) == "completed"
    assert refused, "it was tried while the study ran"
    one = published(first, tmp_path / "out-1")
    before = charges(alder)

    update_source(alder, withdrawn, first.plan, 1)
    assert charges(alder) == before, "what was charged stays charged"
    members = json.dumps([json.loads(path.read_text()) for path in (alder.root / "members").iterdir()])
    assert pseudonym(key, gone) in members, "and the patient stays bound to the cohort of the first charge"

    asked = parse({**values, "release": [*values["release"], GROUPED]}, Plan, "plan")
    made = plan_rerelease(first.coordinator, one.manifest_sha256, Changes(again=("alder",)), asked)
    coordinator = make_home(first.coordinator, tmp_path / "coordinator-2", made)
    alder.pin(made.plan)
    second = Federation(tmp_path, made.plan, coordinator, {})
    second.sites["alder"] = Site(alder, lambda data, plan: take_package(coordinator, made.plan, "alder", data))
    read = []
    original = SiteStore.cohort
    monkeypatch.setattr(
        SiteStore, "cohort", lambda store, name: read.append(store.members(name)) or original(store, name)
    )
    assert run(second) == "completed", second.result()
    assert read, "the groups were made of patients"
    assert all(pseudonym(key, gone) not in who.train | who.holdout for who in read)
    two = published(second, tmp_path / "out-2")
    assert set(verify_dataset(two.folder, None).sites) == {"alder", "birch", "cedar"}
    with alder.open_ledger() as ledger:
        assert ledger.spent_epsilon("train") == pytest.approx(epsilon(study_events(first.plan, "train"), 1e-5))
        assert {entry.plan_hash for entry in ledger.entries()} == {first.plan.digest, made.plan.digest}
