"""A patient who withdrew comes back by another way: another identifier, another name, two commands at once, a kill."""

from __future__ import annotations

import multiprocessing
import os

import numpy as np
import pytest
import yaml
from support.dicoms import make, save
from support.lone_site import KEY, STUDY, TRAIN, make_home_at
from support.studies import POLICY
from support.ward import Ward

from sfumato_client.dataset import withdrawing as store_withdrawing
from sfumato_client.ingest import Answers
from sfumato_client.ingest.sources import DicomSource
from sfumato_client.site import withdrawing
from sfumato_client.site.home import SiteHome
from sfumato_client.site.ingesting import ingest_source, update_source
from sfumato_client.site.withdrawing import take_back, withdraw
from sfumato_client.site.withdrawn import read_withdrawn, withdrawn_file
from sfumato_client.tabular import run
from sfumato_client.tabular.schema import TableSchema
from sfumato_common.accounting.events import GaussianRelease
from sfumato_common.accounting.members import pseudonym
from sfumato_common.errors import BusyError, DataError
from sfumato_common.locks import in_turn
from sfumato_common.strict import parse

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def home(tmp_path) -> SiteHome:
    return make_home_at(tmp_path / "alder")


@pytest.fixture
def ward(tmp_path, monkeypatch) -> Ward:
    made = Ward(tmp_path / "ward", monkeypatch)
    for name in TRAIN[:6]:
        made.put(f"{name}.png", name)
    return made


def ingest(home, ward, **answers):
    return ingest_source(home, ward.source(**answers), STUDY, workers=1)


def update(home, ward, **answers):
    return update_source(home, ward.source(**answers), STUDY, workers=1)


def members(home):
    return set(home.open_store().members("train").train)


def of(*names):
    return {pseudonym(KEY, name) for name in names}


def test_who_withdrew_does_not_come_back_by_an_identifier_that_was_joined_to_the_own_one(home, ward):
    """The hospital takes the withdrawn row out of its table; the same person's other identifier stays in it."""
    ward.put("same-a.png", "Q1", "normal", 7)
    ward.put("same-b.png", "P-7731", "normal", 7)  # the same picture: one patient under two identifiers
    ingest(home, ward, image_of_two_patients="merge")
    assert withdraw(home, ["Q1"]).images == 1
    row = ward.rows.pop("same-a.png")
    report = update(home, ward, image_of_two_patients="merge", most_dropped=1.0)
    assert report.reasons["its patient has withdrawn"] == 1
    assert members(home) == of(*TRAIN[:6])
    assert take_back(home, ["P-7731"]) == 1, "who agreed anew did so under every identifier"
    assert read_withdrawn(home) == {}
    ward.rows["same-a.png"] = row
    update(home, ward, image_of_two_patients="merge", most_dropped=1.0)
    assert members(home) == of(*TRAIN[:6], "Q1", "P-7731")


def test_who_comes_back_under_a_new_identifier_is_asked_about_by_name_and_birth_date(home, tmp_path):
    folder = tmp_path / "dicom"
    folder.mkdir()
    patients = {"0.dcm": "DOE-1", "1.dcm": "ROE-2"}

    def source(**answers):
        for number, (name, patient) in enumerate(patients.items()):
            pixels = np.random.default_rng(number).integers(0, 4096, (24, 24)).astype(np.uint16)
            born = {"PatientName": "Doe^Jane", "PatientBirthDate": "19610203"} if "DOE" in patient else {}
            save(make(pixels, bits=12), folder / name, patient=patient, StudyInstanceUID=f"1.2.{name[0]}", **born)
        table = folder / "labels.csv"
        table.write_text("file,label\n" + "".join(f"{name},normal\n" for name in patients))
        return DicomSource(kind="dicom", folder=folder, labels=table, answers=Answers(most_dropped=1.0, **answers))

    ingest_source(home, source(), STUDY, workers=1)
    assert withdraw(home, ["DOE-1"]).images == 1
    text = withdrawn_file(home).read_text()
    assert "Doe" not in text and "1961" not in text
    patients = {"1.dcm": "ROE-2", "2.dcm": "DOE-NEW-9"}
    with pytest.raises(DataError, match="same_person"):
        update_source(home, source(), STUDY, workers=1)
    update_source(home, source(same_person="merge"), STUDY, workers=1)
    assert home.open_store().patients == 1


def test_two_commands_at_once_lose_no_withdrawal(home, ward, monkeypatch):
    """Somebody is taken back while somebody else withdraws: what is read and written again is one step."""
    ingest(home, ward)
    withdraw(home, [TRAIN[0]])
    write, refused = withdrawing._write, []

    def meanwhile(home, said):
        monkeypatch.setattr(withdrawing, "_write", write)
        try:
            withdraw(home, [TRAIN[1]])
        except BusyError:
            refused.append(1)
        write(home, said)

    monkeypatch.setattr(withdrawing, "_write", meanwhile)
    take_back(home, [TRAIN[0]])
    kept = set(read_withdrawn(home))
    assert kept == (set() if refused else of(TRAIN[1]))
    assert refused


def test_a_command_that_was_killed_and_given_again_leaves_no_picture_of_who_withdrew(home, ward):
    """The new store counts, and the file of the old one lies beside it."""
    ingest(home, ward)
    child = FORK.Process(target=_withdraw_and_die, args=(home, TRAIN[0]))
    child.start()
    child.join(60)
    assert child.exitcode == 9 and home.open_store().patients == 5

    def pixels():
        return [path.name for path in home.store.iterdir() if path.name.startswith("pixels")]

    assert len(pixels()) == 2, "it was killed where it should"
    withdraw(home, [TRAIN[0]])
    assert len(pixels()) == 1 and home.open_store().patients == 5


def _withdraw_and_die(home, name):
    remove, calls = store_withdrawing.remove_others, []

    def dying(*rest):
        calls.append(rest)
        if len(calls) > 1:
            os._exit(9)
        remove(*rest)

    store_withdrawing.remove_others = dying
    withdraw(home, [name])


def test_nobody_withdraws_while_a_question_of_a_study_that_was_left_is_still_worked_on(home, ward):
    """`leave` in mid-question ends the study's claim, and not the process that reads the cohort."""
    ingest(home, ward)
    home.pin(STUDY)
    with home.open_ledger() as ledger:
        ledger.reserve(study=STUDY.study, plan_hash=STUDY.digest, purpose="spectral", round=1, cohort="train",
                       event=GaussianRelease(20.0))  # fmt: skip
    with in_turn(home.turns(STUDY)):
        home.leave(STUDY.study)
        with pytest.raises(BusyError, match="still worked on"):
            withdraw(home, [TRAIN[0]])
        assert home.open_store().patients == 6 and read_withdrawn(home) == {}
    assert withdraw(home, [TRAIN[0]]).images == 1


def test_who_withdraws_before_there_is_a_store_never_comes_into_it(home, ward):
    assert withdraw(home, [TRAIN[0]]).strangers == 1
    ingest(home, ward)
    assert members(home) == of(*TRAIN[1:6])


def test_no_image_that_was_made_of_who_withdrew_stays_of_a_study_that_was_left(home, ward):
    ingest(home, ward)
    home.pin(STUDY)
    home.leave(STUDY.study)
    folder = home.releases / STUDY.digest[:16]
    folder.mkdir(parents=True)
    names = ("request.safetensors", "k-same-gan.safetensors", "k-same-gan.behind", "k-same-gan.encrypted")
    for name in (*names, "declared.sfumato", "refused-declared.json"):
        (folder / name).write_bytes(b"x")
    withdraw(home, [TRAIN[0]])
    left = {"request.safetensors", "declared.sfumato", "refused-declared.json"}
    assert {path.name for path in folder.iterdir()} == left


def test_a_table_of_the_same_identifiers_takes_nobody_who_withdrew(home, ward, tmp_path, monkeypatch):
    ingest(home, ward)
    withdraw(home, [TRAIN[0]])
    columns = {name: {"kind": "numeric", "low": 0.0, "high": 1.0} for name in "ab"}
    training = {"steps": 2, "hidden": 8, "couplings": 1, "noise_multiplier": 2.0, "nominal_patients": 40}
    values = {
        "table": "ward", "rows": 4, "privacy": {"epsilon": 30.0}, "columns": columns, "patient": "id",
        "patient_ids": "hospital", "training": training,
        "release": {"mechanism": "gaussian", "clip": "l2", "noise_multiplier": 1.5},
    }  # fmt: skip
    rules = {**POLICY, "release": {**POLICY["release"], "allowed_methods": ["cadp"]}, "minimum_patients": 2}
    (home.root / "policy.yaml").write_text(yaml.safe_dump({"site": "alder", **rules}))
    source, seen, original = tmp_path / "in.csv", list[str](), run.split
    source.write_text("id,a,b\n" + "".join(f"{name},0.5,0.1\n" for name in [*TRAIN[:8], TRAIN[0]]))
    monkeypatch.setattr(run, "split", lambda table, *rest: (seen.extend(table.patients), original(table, *rest))[1])
    run.run_tabular(home, source, parse(values, TableSchema, "schema"), tmp_path / "out", report=False)
    assert seen == TRAIN[1:8]
