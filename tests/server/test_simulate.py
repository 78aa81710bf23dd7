"""Simulated studies: who is at which site, what marks them, and what travels between the two halves."""

import io
import json

import numpy as np
import pytest
import yaml
from support.plans import small_plan

from sfumato_common.errors import ConfigError, DataError, PolicyRefusal
from sfumato_common.phantom import DEVICES
from sfumato_common.protocol.frames import read_frame, write_frame
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.simulated import MARK, require_real, require_simulated, simulated_site, simulated_study
from sfumato_server.simulate.cohorts import IndexSource, PhantomSource, Spread
from sfumato_server.simulate.engines import Where
from sfumato_server.simulate.run import Question, run_simulation

SITES = {simulated_site(number): 20 for number in range(1, 5)}


def plan():
    return parse({**small_plan(released="spectral", sites=SITES), "study": "simulated-small-1"}, Plan, "plan")


@pytest.fixture
def index(tmp_path):
    """Two devices of 30 training patients each, one in three ill; six to judge, six for a test; one in two splits."""
    rows = ["set,row,site,patient_id,split,abnormal"]
    for number in range(72):
        split = "train" if number < 60 else "val" if number < 66 else "test"
        rows.append(f"all,{number},{'ab'[number % 2]},p{number},{split},{int(number % 3 == 0)}")
    rows += ["all,72,a,both,train,0", "all,73,a,both,val,0"]
    (tmp_path / "index.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "index.csv"


def members(cohort):
    return {patient for _, _, patient, _ in cohort.rows}


def test_nobody_is_at_two_sites_and_no_site_has_who_judges_or_tests(index):
    source = IndexSource(index)
    cohorts = source.cohorts(plan(), 15, Spread(), 1)
    everybody = [patient for cohort in cohorts.values() for patient in members(cohort)]
    assert len(everybody) == len(set(everybody)) == 60
    assert set(everybody) == {f"p{number}" for number in range(60)}
    assert members(source.judges(plan())) == {f"p{number}" for number in range(60, 66)}
    assert source.cohorts(plan(), 15, Spread(), 1) == cohorts
    assert source.cohorts(plan(), 15, Spread(), 2) != cohorts


def test_by_device_a_site_has_one_device(index):
    cohorts = IndexSource(index).cohorts(plan(), 15, Spread(by_device=True), 1)
    parities = [{int(patient[1:]) % 2 for patient in members(cohort)} for cohort in cohorts.values()]
    assert parities == [{0}, {1}, {0}, {1}]
    devices = [cohort.devices for cohort in PhantomSource().cohorts(plan(), 15, Spread(by_device=True), 1).values()]
    assert devices == [[sorted(DEVICES)[number % len(DEVICES)]] for number in range(4)]


def test_by_label_sites_are_the_more_unlike_the_smaller_alpha(index):
    def shares(alpha):
        cohorts = IndexSource(index).cohorts(plan(), 8, Spread(alpha=alpha), 3)
        return [sum(label == "1" for *_, label in cohort.rows) / len(cohort.rows) for cohort in cohorts.values()]

    assert np.std(shares(0.3)) > 2 * np.std(shares(1000.0))


def test_too_few_patients_are_told(index):
    with pytest.raises(DataError, match="too few patients"):
        IndexSource(index).cohorts(plan(), 16, Spread(), 1)
    index.write_text(index.read_text().replace(",val,", ",test,"))
    with pytest.raises(DataError, match="'val'"):
        IndexSource(index)


def test_the_mark_is_on_names_that_fit_and_no_real_study_takes_it():
    long = simulated_study("a" * 32, 12)
    assert len(long) == 32 and long.startswith(MARK) and long.endswith("-12")
    assert simulated_study("demo", 1) != simulated_study("demo", 2)
    require_real("demo", "alder")
    with pytest.raises(ConfigError, match="simulations"):
        require_real("demo", simulated_site(1))
    require_simulated(plan())
    real = parse(small_plan(released="spectral", sites={"alder": 20}), Plan, "plan")
    with pytest.raises(PolicyRefusal, match="simulated-"):
        require_simulated(real)
    # a marked study does not make a hospital's site a simulated one
    mixed = parse({**small_plan(released="spectral", sites={"alder": 20}), "study": "simulated-x-1"}, Plan, "plan")
    with pytest.raises(PolicyRefusal, match="simulated-"):
        require_simulated(mixed)


@pytest.mark.parametrize(
    "arrays", [{}, {"a/b": np.arange(6, dtype=np.int64).reshape(2, 3), "c": np.zeros(0, np.uint8)}]
)
def test_a_frame_is_what_it_was(arrays):
    stream = io.BytesIO()
    write_frame(stream, {"do": "é", "n": 1}, arrays)
    write_frame(stream, {}, {})
    stream.seek(0)
    header, found = read_frame(stream)
    assert header == {"do": "é", "n": 1}
    assert {name: (value.dtype, value.tolist()) for name, value in found.items()} == {
        name: (value.dtype, value.tolist()) for name, value in arrays.items()
    }
    assert read_frame(stream) == ({}, {})
    assert read_frame(stream) is None
    assert read_frame(io.BytesIO(stream.getvalue()[:20])) is None, "the other end died in the middle"


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump(small_plan(released="spectral", sites={"alder": 20}, noise=0.7)))
    out = tmp_path / "out"
    (out / "runs").mkdir(parents=True)
    (out / "runs" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="other things"):
        run_simulation(Question(file, "phantom", [2], [20]), out, Where(workers=1), lambda *told: None)
    assert (out / "runs" / "thesis.txt").read_text() == "mine"
    with pytest.raises(ConfigError, match="at least 12 patients"):
        run_simulation(Question(file, "phantom", [2], [11]), tmp_path / "new", Where(workers=1), lambda *told: None)
    assert json.loads((tmp_path / "new" / "simulation.json").read_text())["rows"] == []
