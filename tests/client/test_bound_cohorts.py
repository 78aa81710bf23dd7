"""A patient pays in one cohort, or in both and is charged for both: bound at the first charge, by keyed pseudonym.

The attacks: a table whose rows nobody can match to the patients of images trained on 593 of 755 who were held out from
images; an ingest without the split column of the one before moved 579 of 4,000. The ledger said the larger of the two
cohorts, 7.69, and such a patient had paid for both, 11.77.
"""

import csv
import multiprocessing
import shutil
import time
import tracemalloc

import numpy as np
import pytest
import yaml
from support.studies import PLAN, POLICY

from sfumato_client.dataset import SiteStore
from sfumato_client.dataset.splits import keyed_split
from sfumato_client.ingest import SiteImage
from sfumato_client.ledger import Ledger
from sfumato_client.site.handler import Site
from sfumato_client.site.home import SiteHome
from sfumato_client.site.store_key import read_store_key
from sfumato_client.tabular.run import check_rows, run_tabular
from sfumato_client.tabular.schema import TableSchema
from sfumato_common.accounting.accountant import epsilon
from sfumato_common.accounting.events import GaussianRelease
from sfumato_common.accounting.members import Members, key_name, pseudonym
from sfumato_common.crypto.identity import create_identity
from sfumato_common.errors import ConfigError, DataError, LedgerError
from sfumato_common.protocol.messages import PROTOCOL, Request
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Budget

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
KEY = bytes(range(32))
NAMES = [f"P{number:03d}" for number in range(60)]
STUDY = parse({**PLAN, "stages": PLAN["stages"][:1], "release": [{"model": "spectral", "images": 4}]}, Plan, "plan")
RULES = {**POLICY, "release": {**POLICY["release"], "allowed_methods": ["cadp", "dp-sampling"]}}
SCHEMA = {
    "table": "ward",
    "rows": 30,
    "privacy": {"epsilon": 30.0},
    "columns": {name: {"kind": "numeric", "low": 0.0, "high": 1.0} for name in ("a", "b", "c")},
    "release": {"mechanism": "gaussian", "clip": "l2", "noise_multiplier": 1.5},
    "training": {"steps": 2, "hidden": 8, "couplings": 1, "noise_multiplier": 2.0, "nominal_patients": 40},
}
BUDGET = Budget(epsilon=20.0, delta=1e-5)
fork = multiprocessing.get_context("fork")


def images(split_of=lambda name: None, names=NAMES):
    rng = np.random.default_rng(0)
    for at, name in enumerate(names):
        yield SiteImage(rng.integers(0, 255, (24, 24)).astype(np.uint8), at % 2, name, split_of(name))


def every_fifth(name):
    """A split column of the hospital's own, which is not what the site's key would draw."""
    return "holdout" if int(name[1:]) % 5 == 0 else "train"


@pytest.fixture
def home(tmp_path):
    root = tmp_path / "alder"
    create_identity(root / "identity", "alder")
    (root / "identity" / "split.key").write_text(KEY.hex())
    (root / "policy.yaml").write_text(yaml.safe_dump({"site": "alder", **RULES}))
    made = SiteHome(root)
    made.pin(STUDY)
    return made


def train_once(home):
    """One round on the training patients."""
    return Site(home, lambda data, plan: None).handle(Request(PROTOCOL, STUDY.digest, "stage", "spectral", 1, {}))


def charge_held_out(home):
    """What the test figure and the gate do."""
    with home.open_ledger() as ledger:
        home.charged_cohorts(STUDY, ledger, "holdout")


def ingest_again(home, split_of=lambda name: None, names=NAMES):
    shutil.rmtree(home.store)
    return home.ingest(images(split_of, names), STUDY)


def write_table(path, names=NAMES):
    values = np.random.default_rng(1).random((len(names), 3)).round(3).tolist()
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([["id", *"abc"], *([name, *row] for name, row in zip(names, values, strict=True))])
    return path


def schema(**changes):
    return parse({**SCHEMA, "patient": "id", **changes}, TableSchema, "schema")


def test_a_charged_patient_is_moved_by_no_later_ingest(home):
    home.ingest(images(every_fifth), STUDY)
    ingest_again(home)  # nobody was charged yet: the steward may still choose
    ingest_again(home, every_fifth)
    assert train_once(home).status == "ok"
    with pytest.raises(DataError, match="charged as training patients before would be held out here"):
        ingest_again(home)
    assert not home.store.exists()  # refused whole
    with pytest.raises(DataError, match="charged as training patients"):
        home.ingest(images(lambda name: "holdout"), STUDY)
    # the same split again, with somebody more and somebody less, is no move; but it is another cohort than the study's
    home.leave(STUDY.study)
    home.ingest(images(every_fifth, ["P991", *NAMES[3:]]), STUDY)
    with home.open_ledger() as ledger:
        ledger.verify()


def test_a_store_that_was_put_there_by_hand_is_refused_at_the_charge_and_at_accept(home):
    home.ingest(images(every_fifth), STUDY)
    assert train_once(home).status == "ok"
    charge_held_out(home)
    shutil.rmtree(home.store)
    SiteStore.create(
        home.store, images(), STUDY.image, STUDY.labels, KEY, read_store_key(home.identity)
    )  # asks no ledger
    other = STUDY.model_copy(update={"study": "other"})
    home.pin(other)
    reply = Site(home, lambda data, plan: None).handle(Request(PROTOCOL, other.digest, "stage", "spectral", 1, {}))
    assert reply.status == "failed"
    assert "first charge" in (home.steward_folder / "errors" / f"{reply.reference}.txt").read_text()
    with home.open_ledger() as ledger, pytest.raises(DataError, match="first charge"):
        ledger.check_members(home.open_store().members("train", "holdout"))


def test_a_table_of_known_patients_moves_nobody(home, tmp_path):
    home.ingest(images(every_fifth), STUDY)
    assert train_once(home).status == "ok"
    charge_held_out(home)
    source, known = write_table(tmp_path / "in.csv"), schema(patient_ids="hospital")
    assert {keyed_split(KEY, name) for name in NAMES if every_fifth(name) == "holdout"} == {"train", "holdout"}
    with pytest.raises(DataError, match="charged as held out patients before would train here"):
        check_rows(home, source, known)
    with pytest.raises(DataError, match="charged as held out patients"):
        run_tabular(home, source, known, tmp_path / "out", report=False)
    assert not (tmp_path / "out").exists()
    # nor does an ingest after a table
    fresh = write_table(tmp_path / "fresh.csv", [f"Q{number:03d}" for number in range(60)])
    made = run_tabular(home, fresh, schema(patient_ids="hospital", table="fresh"), tmp_path / "fresh", report=False)
    assert made.certificate.mechanisms["holdout"] == []
    trained = next(f"Q{n:03d}" for n in range(60) if keyed_split(KEY, f"Q{n:03d}") == "train")
    with pytest.raises(DataError, match="charged as training patients"):
        ingest_again(home, lambda name: "holdout" if name == trained else "train", [trained, "P001", "P002"])


@pytest.mark.parametrize("changes", [{}, {"patient": None, "rows_are_patients": True, "leave_out": ["id"]}])
def test_where_nobody_can_tell_who_is_who_both_cohorts_are_charged(home, tmp_path, changes):
    home.ingest(images(), STUDY)
    source, figure = write_table(tmp_path / "in.csv"), GaussianRelease(2.0)
    with home.open_ledger() as ledger:
        ledger.reserve(study="s", plan_hash="ab" * 32, purpose="u", round=1, cohort="holdout", event=figure)
    stated = run_tabular(home, source, schema(**changes), tmp_path / "out", report=False).certificate
    assert stated.epsilon.holdout == stated.epsilon.train == stated.epsilon.patient
    with home.open_ledger() as ledger:
        paid = ledger.costs()
        table = ledger.events("train", stated.plan_hash)
        assert len(ledger.settled_results()) == 2 * len(table)
        assert ledger.unsettled_charges() == [1]
    # the worst that anybody can have paid: held out from images, and trained on in the table
    assert paid.patient.add_remove >= epsilon([figure, *table], BUDGET.delta)
    with pytest.raises(ConfigError, match="'patient_ids: hospital' is said of a 'patient' column"):
        schema(patient=None, rows_are_patients=True, patient_ids="hospital")


def members(train=(), holdout=(), key=KEY):
    names = (frozenset(pseudonym(key, name) for name in part) for part in (train, holdout))
    return Members(key_name(key), *names)


def test_another_split_key_and_a_lost_or_altered_file_are_refused(tmp_path):
    with Ledger.open(tmp_path / "ledger.sqlite", BUDGET, site="north") as ledger:
        ledger.bind(members(["a"], ["b"]))
        ledger.bind(members(["a"], ["b"]))
        assert len(list((tmp_path / "members").iterdir())) == 1  # nobody new, nothing new
        with pytest.raises(LedgerError, match="another split key"):
            ledger.bind(members(holdout=["a"], key=KEY[::-1]))
        ledger.bind(members(["c"]))
        for file in (tmp_path / "members").iterdir():
            kept = file.read_bytes()
            assert file.stat().st_mode & 0o077 == 0
            for data in (None, b"{}", kept + b" "):
                file.unlink() if data is None else file.write_bytes(data)
                for refused in (ledger.verify, lambda: ledger.bind(members(holdout=["a"]))):
                    with pytest.raises(LedgerError, match="missing or altered"):
                        refused()
            file.write_bytes(kept)
        ledger.verify()
        with pytest.raises(DataError, match="first charge"):
            ledger.bind(members(holdout=["a"]))
        assert b'"a"' not in b"".join(file.read_bytes() for file in (tmp_path / "members").iterdir())


def _race(path, cohort, results):
    with Ledger.open(path, BUDGET, site="north") as ledger:
        try:
            ledger.bind(members(**{cohort: NAMES}))
            results.put("bound")
        except DataError:
            results.put("refused")


def test_two_processes_cannot_bind_one_patient_twice(tmp_path):
    Ledger.open(tmp_path / "ledger.sqlite", BUDGET, site="north").close()
    results = fork.Queue()
    children = [fork.Process(target=_race, args=(tmp_path / "ledger.sqlite", c, results)) for c in ("train", "holdout")]
    for child in children:
        child.start()
    assert sorted(results.get(timeout=60) for _ in children) == ["bound", "refused"]
    for child in children:
        child.join(30)


def test_a_hundred_thousand_patients_take_seconds_and_megabytes(tmp_path):
    names = [f"{number:032x}" for number in range(100_000)]
    everybody = Members("key", frozenset(names[:80_000]), frozenset(names[80_000:]))
    with Ledger.open(tmp_path / "ledger.sqlite", BUDGET, site="north") as ledger:
        tracemalloc.start()
        began = time.process_time()
        ledger.bind(everybody)
        ledger.bind(everybody)
        with pytest.raises(DataError):
            ledger.check_members(Members("key", frozenset(names[99_999:])))
        took, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert took < 10.0
    assert peak < 120e6
    assert sum(file.stat().st_size for file in (tmp_path / "members").iterdir()) < 4e6
