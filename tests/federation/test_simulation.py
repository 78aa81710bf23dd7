"""`sfumato simulate`, whole: real worker processes, homes, ledgers, gate and packages of sites that do not exist."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from support.commands import speaker
from support.plans import small_plan

from sfumato_client.site.home import SiteHome
from sfumato_client.site.simulated import make_simulated_home
from sfumato_common.errors import DataError, FederationError, PolicyRefusal, VerificationError
from sfumato_common.strict import parse
from sfumato_common.study.costs import study_events
from sfumato_common.study.plan import Plan
from sfumato_common.study.simulated import PhantomCohort, SiteToMake
from sfumato_server.enrol import Registry
from sfumato_server.intake.admission import admit
from sfumato_server.simulate.cohorts import Spread, source_of
from sfumato_server.simulate.engines import Where, started

PROGRAM = Path(sys.executable).parent / "sfumato"
VALUES = {
    **small_plan(released="spectral", sites={"alder": 40}, noise=0.7),
    "utility": {"bins": 8, "noise_multiplier": 2.0},
}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """(folder of everything, what the command wrote) of three sites of 50 patients with their releases."""
    folder = tmp_path_factory.mktemp("simulated")
    (folder / "plan.yaml").write_text(yaml.safe_dump(VALUES))
    for name in ("home", "tmp", "cwd"):
        (folder / name).mkdir()
    command = [str(PROGRAM), "simulate", str(folder / "plan.yaml"), "--sites", "3", "--patients", "50", "--by-device"]
    command += ["--label-alpha", "2", "--out", str(folder / "out"), "--release", "--keep", "--workers", "2", "--json"]
    environment = {**os.environ, "HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, cwd=folder / "cwd", capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_the_table_has_what_was_asked(simulated):
    folder, report = simulated
    assert json.loads((folder / "out" / "simulation.json").read_text()) == report
    [row] = report["rows"]
    assert (row["sites"], row["patients"], report["simulated"]) == (3, 50, True)
    assert 0.0 <= row["utility"]["spectral"] <= 1.0
    assert row["answers"] == {"ok": 15, "refused": 0, "failed": 0}
    assert row["package_bytes"] > 0


def test_nothing_is_written_elsewhere(simulated):
    folder, _ = simulated
    assert {path.name for path in folder.iterdir()} == {"plan.yaml", "home", "tmp", "cwd", "out"}
    assert not [path for name in ("home", "tmp", "cwd") for path in (folder / name).rglob("*")]


def test_ledgers_and_certificates_are_real_and_everything_says_that_it_is_simulated(simulated):
    folder, _ = simulated
    [run] = (folder / "out" / "runs").iterdir()
    plan = parse(json.loads((run / "coordinator" / "plan.json").read_text()), Plan, "plan")
    assert plan.study == "simulated-small-1"
    for path in sorted((run / "sites").iterdir()):
        home = SiteHome(path)
        with home.open_ledger() as ledger:
            ledger.verify()
            assert ledger.events("train", plan.digest) == study_events(plan, "train")
        data = (run / "coordinator" / "intake" / f"{path.name}.formal.sfumato").read_bytes()
        package = admit(data, plan, record := Registry(run / "coordinator").record_in_force(path.name))
        assert package.head.study.startswith("simulated-") and package.head.site.startswith("simulated-")
        assert package.certificate.noise == "test" and "TEST NOISE" in package.certificate.covers
        # the real study of the same numbers, under the same site's key
        real = plan.model_copy(update={"study": "small"})
        with pytest.raises(VerificationError):
            admit(data, real, record)


def test_a_real_plan_gets_no_simulated_home_and_a_simulated_one_no_hospital(tmp_path, monkeypatch, capsys):
    plan = parse(VALUES, Plan, "plan")
    cohort = PhantomCohort(seed=1, site="alder", patients=20, devices=["aurora"], ill=None)
    with pytest.raises(PolicyRefusal, match="simulated-"):
        make_simulated_home(tmp_path / "alder", "alder", plan, cohort)
    assert not (tmp_path / "alder").exists()
    say = speaker(monkeypatch, capsys)
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({**VALUES, "study": "simulated-small-1"}))
    code, said, _ = say(
        "sfumato", "coordinator", "init", "--home", tmp_path / "coord", "--plan", tmp_path / "plan.yaml"
    )
    assert (code, "of simulations" in said) == (2, True)
    policy = yaml.safe_load((Path(__file__).resolve().parents[2] / "configs" / "policy.yaml").read_text())
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump({**policy, "site": "simulated-001"}))
    code, said, _ = say("sfumato-site", "init", "--home", tmp_path / "home", "--policy", tmp_path / "policy.yaml")
    assert (code, "of simulations" in said) == (2, True)


def test_sites_and_judges_of_an_index_get_its_rows(tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (40, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "all.npz", images=images)
    splits = ["train"] * 30 + ["val"] * 10
    lines = [f"all,{number},a,p{number},{split},{number % 2}" for number, split in enumerate(splits)]
    (tmp_path / "index.csv").write_text("\n".join(["set,row,site,patient_id,split,abnormal", *lines]) + "\n")
    source = source_of(str(tmp_path / "index.csv"))
    values = {**VALUES, "study": "simulated-small-1", "sites": {"simulated-001": {"nominal_patients": 24}}}
    plan = parse(values, Plan, "plan")
    cohorts = {"simulated-001": source.cohorts(plan, 30, Spread(), 1)["simulated-001"], "judges": source.judges(plan)}
    told = {
        name: SiteToMake(home=str(tmp_path / name), site=name, cohort=cohort).model_dump(mode="json")
        for name, cohort in cohorts.items()
    }
    with started(tmp_path, Where(workers=1)) as workers:
        workers.ask({"do": "make", "plan": plan.model_dump(mode="json"), "site": told["simulated-001"]}, {})
        _, judges = workers.ask({"do": "read", "plan": plan.model_dump(mode="json"), "site": told["judges"]}, {})
    assert sorted(map(bytes, judges["images"])) == sorted(map(bytes, images[30:]))
    assert sorted(judges["labels"]) == [0] * 5 + [1] * 5
    assert SiteHome(tmp_path / "simulated-001").open_store().patients == 30


def test_a_worker_that_dies_costs_one_answer(tmp_path):
    with started(tmp_path, Where(workers=1)) as workers:
        with pytest.raises(DataError, match="does not know"):
            workers.ask({"do": "nothing"}, {})
        workers._all[0].child.kill()
        with pytest.raises(FederationError, match="died"):
            workers.ask({"do": "nothing"}, {})
        with pytest.raises(DataError, match="does not know"):
            workers.ask({"do": "nothing"}, {})


def test_a_plan_that_sums_securely_is_simulated_with_keys_of_its_own(tmp_path):
    keys = ["aaaa", "bbbb", "cccc"]
    sites = {f"site-{key}": {"nominal_patients": 40, "key": f"{key}-aaaa-bbbb-cccc-dddd"} for key in keys}
    values = {**VALUES, "sites": sites, "secure_sum": {"colluding": 1}, "federation": {"quorum": 3}, "utility": None}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(values))
    command = [str(PROGRAM), "simulate", str(tmp_path / "plan.yaml"), "--sites", "4", "--patients", "30"]
    command += ["--out", str(tmp_path / "out"), "--keep", "--workers", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    [row] = json.loads(done.stdout)["rows"]
    # hello, keys, shares, and three steps of each of three phases
    assert row["answers"] == {"ok": 4 * 12, "refused": 0, "failed": 0}
    homes = sorted((tmp_path / "out" / "runs" / "4-sites-30-patients-1" / "sites").iterdir())
    assert len(homes) == 4
    for home in homes:
        with SiteHome(home).open_ledger() as ledger:
            assert {type(event).__name__ for event in ledger.events("train")} == {"SummedGaussian"}
