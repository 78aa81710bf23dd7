"""`ingest --update`: only what is new is read, nobody leaves in silence, and who was charged keeps the cohort."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from support.dicoms import make, save
from support.studies import PLAN, POLICY
from support.ward import Ward

from sfumato_client.dataset import IngestReport
from sfumato_client.dataset.splits import keyed_split
from sfumato_client.ingest import Answers
from sfumato_client.ingest.sources import AnySource, DicomSource, NpzSource
from sfumato_client.ledger.changing import cohort_held
from sfumato_client.site.home import SiteHome
from sfumato_client.site.ingesting import ingest_source, update_source
from sfumato_common.accounting.events import GaussianRelease
from sfumato_common.accounting.members import pseudonym
from sfumato_common.crypto.identity import create_identity
from sfumato_common.errors import DataError, PolicyRefusal
from sfumato_common.strict import parse
from sfumato_common.study.load import plan_text
from sfumato_common.study.plan import Plan

KEY = bytes(range(32))
STUDY = parse({**PLAN, "stages": PLAN["stages"][:1], "release": [{"model": "spectral", "images": 4}]}, Plan, "plan")
TRAIN = [name for name in (f"P{number:02d}" for number in range(60)) if keyed_split(KEY, name) == "train"]
HELD = [name for name in (f"P{number:02d}" for number in range(60)) if keyed_split(KEY, name) == "holdout"]


@pytest.fixture
def home(tmp_path: Path) -> SiteHome:
    root = tmp_path / "alder"
    create_identity(root / "identity", "alder")
    (root / "identity" / "split.key").write_text(KEY.hex())
    (root / "policy.yaml").write_text(yaml.safe_dump({"site": "alder", **POLICY}))
    made = SiteHome(root)
    made.pin(STUDY)
    return made


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ward:
    made = Ward(tmp_path / "ward", monkeypatch)
    for name in [*TRAIN[:6], *HELD[:3]]:
        made.put(f"{name}-a.png", name)
        made.put(f"{name}-b.png", name, "opacity")
    return made


def ingest(home: SiteHome, source: AnySource) -> IngestReport:
    return ingest_source(home, source, STUDY, workers=1)


def update(home: SiteHome, source: AnySource) -> IngestReport:
    return update_source(home, source, STUDY, workers=1)


def in_store(home: SiteHome) -> dict[str, set[str]]:
    members = home.open_store().members("train", "holdout")
    return {"train": set(members.train), "holdout": set(members.holdout)}


def images(home: SiteHome) -> dict[bytes, tuple[str, int]]:
    """Every image of the store: its split and label."""
    store, found = home.open_store(), dict[bytes, tuple[str, int]]()
    for split in ("train", "holdout"):
        pixels, labels, _ = store.cohort(split).everything()
        found |= {one.tobytes(): (split, int(label)) for one, label in zip(pixels, labels, strict=True)}
    return found


def pseudonyms(*names: str) -> set[str]:
    return {pseudonym(KEY, name) for name in names}


def charge(home: SiteHome, *cohorts: str) -> None:
    """What a study that is over took: its patients are bound, and its release is out, so that it is not under way."""
    with home.open_ledger() as ledger:
        for cohort in cohorts:
            ledger.reserve(study="over", plan_hash="ab" * 32, purpose=cohort, round=1, cohort=cohort,
                           event=GaussianRelease(20.0))  # type: ignore[arg-type]  # fmt: skip
        home.charged_cohorts(STUDY, ledger, *cohorts)  # type: ignore[arg-type]


def test_only_what_is_new_is_read_and_the_rest_stays_to_the_bit(home: SiteHome, ward: Ward) -> None:
    ingest(home, ward.source())
    assert len(ward.asked) == 18
    before = images(home)
    ward.put(f"{TRAIN[0]}-c.png", TRAIN[0])  # a new image of an old patient
    ward.put("new.png", TRAIN[9])  # a new patient
    report = update(home, ward.source())
    assert sorted(ward.asked) == sorted([f"{TRAIN[0]}-c.png", "new.png"])
    assert (report.kept, report.patients) == (20, 10)
    assert any("18 images were kept as they were" in note for note in report.notes)
    after = images(home)
    assert {picture: after[picture] for picture in before} == before
    assert in_store(home) == {"train": pseudonyms(*TRAIN[:6], TRAIN[9]), "holdout": pseudonyms(*HELD[:3])}
    # the same again reads nothing, and is the same
    update(home, ward.source())
    assert not ward.asked
    assert images(home) == after
    assert len(list(home.store.iterdir())) == 4
    assert not (home.root / ".store.partial").exists()


def test_a_file_that_was_changed_and_a_label_that_was_corrected_are_read_again(home: SiteHome, ward: Ward) -> None:
    ingest(home, ward.source())
    before = images(home)
    ward.put(f"{TRAIN[0]}-a.png", TRAIN[0], "normal", picture=77)
    ward.rows[f"{TRAIN[1]}-a.png"] = (TRAIN[1], "opacity")
    os.utime(ward.folder / f"{TRAIN[2]}-a.png", (1, 1))  # the same pixels
    update(home, ward.source())
    assert sorted(ward.asked) == [f"{name}-a.png" for name in TRAIN[:3]]
    after = images(home)
    assert len(after) == 18
    assert len(set(before) - set(after)) == 1
    assert sorted(label for _, label in after.values()) == [0] * 8 + [1] * 10


def test_who_is_gone_from_the_table_leaves_only_where_somebody_says_so(home: SiteHome, ward: Ward) -> None:
    ingest(home, ward.source())
    before = images(home)
    for name in (f"{TRAIN[0]}-a.png", f"{TRAIN[0]}-b.png", f"{TRAIN[1]}-a.png"):
        del ward.rows[name]
    ward.put("new.png", TRAIN[9])
    with pytest.raises(DataError, match=r"3 images of 2 patients: .* 'gone: remove' or 'gone: keep'"):
        update(home, ward.source())
    assert images(home) == before, "the old store is whole"
    ward.asked.clear()
    update(home, ward.source(gone="keep"))
    assert not ward.asked, "what was read stays read when the answer is given"
    assert len(images(home)) == 19
    update(home, ward.source(gone="remove"))
    assert in_store(home)["train"] == pseudonyms(*TRAIN[1:6], TRAIN[9])
    assert len(images(home)) == 16


def test_a_file_that_is_lost_is_gone_too(home: SiteHome, ward: Ward) -> None:
    ingest(home, ward.source())
    (ward.folder / f"{TRAIN[0]}-a.png").unlink()
    (ward.folder / f"{TRAIN[1]}-a.png").write_bytes(b"no picture any more")
    with pytest.raises(DataError, match="2 images of 2 patients"):
        update(home, ward.source())


@pytest.mark.parametrize("where", ["list", "file"])
def test_a_withdrawn_patient_leaves_though_the_table_has_the_rows(home, ward, tmp_path, where) -> None:
    ingest(home, ward.source())
    (tmp_path / "withdrawn.txt").write_text(f"\ufeff{TRAIN[0]}\r\n\n nobody \n")
    source = ward.source(tmp_path / "withdrawn.txt" if where == "file" else [TRAIN[0], "nobody"])
    report = update(home, source)
    assert in_store(home)["train"] == pseudonyms(*TRAIN[1:6])
    assert report.reasons == {"its patient has withdrawn": 2}
    assert any("1 of the identifiers under 'withdrawn' have no image here" in note for note in report.notes)
    # and an ingest from the beginning takes nobody in who is listed
    for path in home.store.iterdir():
        path.unlink()
    home.store.rmdir()
    ingest(home, source)
    assert in_store(home)["train"] == pseudonyms(*TRAIN[1:6])


def test_a_withdrawn_patient_in_another_writing_is_asked_about(home: SiteHome, ward: Ward) -> None:
    ingest(home, ward.source())
    with pytest.raises(DataError, match="alike_ids"):
        update(home, ward.source([f" {TRAIN[0].lower()}"]))
    asked = json.loads((home.root / "ingest-report.json").read_text())["questions"][0]["about"]
    assert asked == [f" {TRAIN[0].lower()} = the patient of {TRAIN[0]}-a.png"], "the store knows no identifier"
    update(home, ward.source([f" {TRAIN[0].lower()}"], alike_ids="merge"))
    assert in_store(home)["train"] == pseudonyms(*TRAIN[1:6])


def test_whoever_was_charged_stays_bound_when_they_withdraw_and_when_they_come_back(home: SiteHome, ward: Ward) -> None:
    ingest(home, ward.source())
    charge(home, "train", "holdout")
    with home.open_ledger() as ledger:
        paid = ledger.costs()
    update(home, ward.source([TRAIN[0], HELD[0]]))
    assert in_store(home) == {"train": pseudonyms(*TRAIN[1:6]), "holdout": pseudonyms(*HELD[1:3])}
    with home.open_ledger() as ledger:
        assert ledger.costs() == paid, "what was charged stays charged"
        ledger.verify()
    # back again, and in the cohort of the first charge
    update(home, ward.source())
    assert in_store(home) == {"train": pseudonyms(*TRAIN[:6]), "holdout": pseudonyms(*HELD[:3])}
    # not in the other one
    update(home, ward.source([TRAIN[0]]))
    ward.columns = ("patient_id", "label", "split")
    ward.rows = {
        name: (patient, label, "holdout" if patient in (TRAIN[0], *HELD) else "train")
        for name, (patient, label, *_) in ward.rows.items()
    }
    before = images(home)
    with pytest.raises(DataError, match="charged as training patients before would be held out here"):
        update(home, ward.source())
    assert images(home) == before


def test_a_patient_who_was_not_charged_may_move_and_one_who_was_may_not(home: SiteHome, ward: Ward) -> None:
    def split(moved: str) -> None:
        ward.columns = ("patient_id", "label", "split")
        held = {*HELD, moved}
        ward.rows = {
            name: (row[0], row[1], "holdout" if row[0] in held else "train") for name, row in ward.rows.items()
        }

    split("nobody")
    ingest(home, ward.source())
    split(TRAIN[0])
    update(home, ward.source())
    assert in_store(home)["holdout"] == pseudonyms(TRAIN[0], *HELD[:3])
    charge(home, "train")
    split("nobody")
    update(home, ward.source())  # was held out and never charged for it
    split(TRAIN[1])
    with pytest.raises(DataError, match="first charge"):
        update(home, ward.source())


def test_a_second_identifier_of_a_charged_patient_joins_that_patients_cohort(home: SiteHome, ward: Ward) -> None:
    """And where only the second one is left, the patient is known again."""
    patient = next(name for name in TRAIN if keyed_split(KEY, name.lower()) == "holdout")
    ward.put("first.png", patient)
    ingest(home, ward.source())
    charge(home, "train", "holdout")
    ward.put("second.png", patient.lower())
    update(home, ward.source(alike_ids="merge"))
    assert pseudonyms(patient, patient.lower()) <= in_store(home)["train"]
    charged_again = [name for name in ward.rows if ward.rows[name][0] == patient]
    for name in charged_again:
        del ward.rows[name]
    update(home, ward.source(alike_ids="merge", gone="remove"))
    assert pseudonyms(patient.lower()) <= in_store(home)["train"]
    assert not pseudonyms(patient.lower()) & in_store(home)["holdout"]


def test_two_charged_patients_of_two_cohorts_are_never_merged(home: SiteHome, ward: Ward) -> None:
    patient = next(name for name in TRAIN if keyed_split(KEY, name.lower()) == "holdout")
    ward.put("first.png", patient)
    ward.put("second.png", patient.lower())
    ingest(home, ward.source(alike_ids="separate"))
    charge(home, "train", "holdout")
    with pytest.raises(DataError, match="first charge"):
        update(home, ward.source(alike_ids="merge"))
    # nor by an ingest from the beginning
    for path in home.store.iterdir():
        path.unlink()
    home.store.rmdir()
    with pytest.raises(DataError, match="first charge"):
        ingest(home, ward.source(alike_ids="merge"))


def test_no_study_that_has_begun_sees_two_cohorts(home: SiteHome, ward: Ward) -> None:
    ingest(home, ward.source())
    with home.open_ledger() as ledger:
        event = GaussianRelease(20.0)
        said = {"study": STUDY.study, "plan_hash": STUDY.digest, "purpose": "spectral", "round": 1}
        ledger.reserve(**said, cohort="train", event=event)
    ward.put("new.png", TRAIN[9])
    before, source = images(home), ward.source()
    with pytest.raises(PolicyRefusal, match="has begun here"):
        update(home, source)
    assert not ward.asked
    assert images(home) == before
    # the last look is in the ledger's own lock
    with (
        home.open_ledger() as ledger,
        pytest.raises(PolicyRefusal, match="has begun here"),
        cohort_held(ledger, home.open_store().members("train", "holdout")),
    ):
        pass
    home.leave(STUDY.study)
    update(home, source)
    assert len(images(home)) == 19


def test_nothing_is_charged_while_the_store_is_put_in_place(home: SiteHome, ward: Ward) -> None:
    ingest(home, ward.source())
    script = (
        "import sys; from pathlib import Path; from sfumato_client.site.home import SiteHome\n"
        "from sfumato_common.accounting.events import GaussianRelease\n"
        "with SiteHome(Path(sys.argv[1])).open_ledger() as ledger:\n"
        "    print('open', flush=True)\n"
        "    ledger.reserve(study='s', plan_hash='cd' * 32, purpose='p', round=1, cohort='train', "
        "event=GaussianRelease(20.0))\n"
    )
    with (
        home.open_ledger() as ledger,
        cohort_held(ledger, home.open_store().members("train", "holdout")),
    ):
        child = subprocess.Popen([sys.executable, "-c", script, str(home.root)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(8)
        assert ledger.entries() == []
    assert child.wait(60) == 0
    with home.open_ledger() as ledger:
        assert len(ledger.entries()) == 1


def test_npz_archives_are_updated_row_by_row(home: SiteHome, tmp_path: Path) -> None:
    folder = tmp_path / "npz"
    folder.mkdir()
    draws = np.random.default_rng(0).integers(0, 256, (8, 24, 24)).astype(np.uint8)
    np.savez(folder / "one.npz", images=draws)

    def source(rows: range, **answers: object) -> NpzSource:
        lines = [f"one,{row},alder,p{row},train,{row % 2}" for row in rows]
        (folder / "index.csv").write_text("\n".join(["set,row,site,patient_id,split,abnormal", *lines]) + "\n")
        said = Answers(**answers)  # type: ignore[arg-type]
        return NpzSource(kind="npz", index=folder / "index.csv", site="alder", answers=said)

    ingest(home, source(range(1, 6)))
    report = update(home, source(range(1, 8)))
    assert report.kept == 7
    assert any("5 images were kept" in note for note in report.notes)
    with pytest.raises(DataError, match="2 images of 2 patients"):
        update(home, source(range(3, 8)))
    assert update(home, source(range(3, 8), gone="remove")).kept == 5
    pixels = home.open_store().cohort("train").everything()[0]
    assert np.array_equal(pixels, draws[3:8])


def test_patients_of_dicom_headers_are_known_again_without_the_header(home: SiteHome, tmp_path: Path) -> None:
    folder = tmp_path / "dicom"
    folder.mkdir()

    def source(count: int, **answers: object) -> DicomSource:
        for number in range(count):
            pixels = np.random.default_rng(number).integers(0, 4096, (24, 24)).astype(np.uint16)
            if not (path := folder / f"{number}.dcm").exists():
                save(make(pixels, bits=12), path, patient=f"DOE-{number // 2 + 1}", StudyInstanceUID=f"1.2.{number}")
        rows = [f"{number}.dcm,normal" for number in range(count)]
        (folder / "labels.csv").write_text("\n".join(["file,label", *rows]) + "\n")
        said = Answers(**answers)  # type: ignore[arg-type]
        return DicomSource(kind="dicom", folder=folder, labels=folder / "labels.csv", answers=said)

    assert ingest(home, source(4)).patients == 2
    report = update(home, source(7))
    assert (report.kept, report.patients) == (7, 4)
    save(make(np.random.default_rng(0).integers(0, 4096, (24, 24)).astype(np.uint16), bits=12), folder / "7.dcm",
         patient="ROE-1")  # fmt: skip
    (folder / "labels.csv").write_text((folder / "labels.csv").read_text() + "7.dcm,normal\n")
    again = DicomSource(kind="dicom", folder=folder, labels=folder / "labels.csv")
    with pytest.raises(DataError, match="image_of_two_patients"):  # pixels that an old patient has
        update(home, again)


def test_other_identifiers_of_a_header_are_remembered_as_tokens(home: SiteHome, tmp_path: Path) -> None:
    folder = tmp_path / "dicom"
    folder.mkdir()

    def source(*patients: tuple[str, str], **answers: object) -> DicomSource:
        for number, (patient, other) in enumerate(patients):
            pixels = np.random.default_rng(number).integers(0, 4096, (24, 24)).astype(np.uint16)
            if not (path := folder / f"{number}.dcm").exists():
                more = {"OtherPatientIDs": other} if other else {}
                save(make(pixels, bits=12), path, patient=patient, StudyInstanceUID=f"1.2.{number}", **more)
        rows = [f"{number}.dcm,normal" for number in range(len(patients))]
        (folder / "labels.csv").write_text("\n".join(["file,label", *rows]) + "\n")
        said = Answers(**answers)  # type: ignore[arg-type]
        return DicomSource(kind="dicom", folder=folder, labels=folder / "labels.csv", answers=said)

    ingest(home, source(("DOE-1", "OLD-7"), ("ROE-2", "")))
    assert not any(b"OLD-7" in path.read_bytes() for path in home.store.iterdir())
    rows = [("DOE-1", "OLD-7"), ("ROE-2", ""), ("old7", "")]
    with pytest.raises(DataError, match="same_person"):  # by what the store knows of a file that is not read again
        update(home, source(*rows))
    assert update(home, source(*rows, same_person="merge")).patients == 2
    assert update(home, source(*rows, ("POE-4", ""), same_person="merge")).patients == 3


def test_a_store_of_another_plan_or_none_is_not_updated(home: SiteHome, ward: Ward) -> None:
    with pytest.raises(DataError, match="missing"):
        update(home, ward.source())
    ingest(home, ward.source())
    with pytest.raises(DataError, match="update"):
        ingest(home, ward.source())
    other = STUDY.model_copy(update={"labels": ["opacity", "normal"]})
    with pytest.raises(DataError, match="ingest again for this plan"):
        update_source(home, ward.source(), other, workers=1)


def test_another_way_of_reading_reads_everything(home: SiteHome, ward: Ward) -> None:
    ingest(home, ward.source())
    source = ward.source().model_copy(update={"map": {"finding": "opacity"}})
    update(home, source)
    assert len(ward.asked) == 18
    assert len(images(home)) == 18


KILLED = """
import os, signal, sys
from pathlib import Path
from sfumato_client.dataset import journal, pixel_file
from sfumato_client.site.home import SiteHome
from sfumato_client.site.ingesting import update_source
from sfumato_client.ingest import load_source
from sfumato_common import files
from sfumato_common.study.load import load_resolved_plan

left = int(sys.argv[4])

def counted(inner):
    def step(*given, **named):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return inner(*given, **named)
    return step

for where, name in ((os, "fsync"), (os, "replace"), (Path, "rename"), (Path, "replace"), (Path, "unlink"),
                    (pixel_file.PixelFile, "append"), (journal.Journal, "append")):
    setattr(where, name, counted(getattr(where, name)))
home = SiteHome(Path(sys.argv[1]))
update_source(home, load_source(Path(sys.argv[2])), load_resolved_plan(Path(sys.argv[3])), workers=1)
print("whole", left)
"""


def test_an_update_that_is_killed_anywhere_leaves_one_store_or_the_other_whole(home, ward, tmp_path) -> None:
    ingest(home, ward.source())
    before = images(home)
    ward.put("new.png", TRAIN[9])
    source = ward.source([TRAIN[0]])
    (tmp_path / "source.yaml").write_text(
        yaml.safe_dump(
            {"kind": "png", "folder": str(ward.folder), "labels": str(source.labels), "withdrawn": [TRAIN[0]]}
        )
    )

    (tmp_path / "plan.yaml").write_text(plan_text(STUDY))
    words = [sys.executable, "-c", KILLED, str(home.root), str(tmp_path / "source.yaml"), str(tmp_path / "plan.yaml")]
    seen, steps, at = set[int](), 0, 0
    while True:
        done = subprocess.run([*words, str(at)], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        found = images(home)
        assert len(found) in (18, 17)
        assert found == before or len(set(before) - set(found)) == 2
        seen.add(len(found))
        if done.returncode == 0:
            break
        steps, at = steps + 1, at + 7
    assert steps > 3
    assert 17 in seen
    assert len(list(home.store.iterdir())) == 4
