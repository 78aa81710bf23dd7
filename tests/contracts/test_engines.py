"""The contract of engines of simulations: whoever keeps the workers, the same is said to them and comes back.

To add an engine: its line in `ENGINES` is enough to be tested here. Ray's part is in the slow suite, and skips without
Ray.
"""

import os
import secrets
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from support.plans import small_plan

from sfumato_client.site.home import SiteHome
from sfumato_common.errors import ConfigError, DataError, FederationError
from sfumato_common.protocol.messages import PROTOCOL, Reply, Request
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.simulated import PhantomCohort, SiteToMake, simulated_site
from sfumato_common.supervise import descendants
from sfumato_server.simulate.engines import ENGINES, RAY, Where, started
from sfumato_server.simulate.study import judges_of

SITES = [simulated_site(number) for number in (1, 2, 3)]
without_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'sfumato[ray]'")
ALL = [pytest.param(name, marks=[pytest.mark.slow, without_ray] if name == RAY else []) for name in ENGINES]


@pytest.fixture(scope="module")
def plan():
    values = small_plan(released="spectral", sites=dict.fromkeys(SITES, 20), noise=0.7)
    return parse({**values, "study": "simulated-small-1"}, Plan, "plan")


@pytest.fixture(scope="module", params=ALL)
def engine(request):
    return request.param


@pytest.fixture(scope="module")
def workers(engine, tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    with started(folder, Where(engine, 2)) as found:
        yield found
    assert not [pid for pid in descendants(os.getpid()) if b"simulation" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def cohort(site):
    return PhantomCohort(seed=1, site=site, patients=24, devices=["aurora"], ill=None)


def make(workers, plan, site, home):
    told = SiteToMake(home=home, site=site, cohort=cohort(site))
    return workers.ask({"do": "make", "plan": plan.model_dump(mode="json"), "site": told.model_dump(mode="json")}, {})


def hello(workers, plan, home):
    message = Request(PROTOCOL, plan.digest, "hello", "", 0, {}).to_config()
    said, arrays = workers.ask({"do": "handle", "home": home, "message": message}, {})
    return Reply.from_config(said["message"], arrays)


def test_homes_are_made_below_the_folder_answer_and_are_removed(workers, plan):
    for site in SITES:
        said, _ = make(workers, plan, site, f"run/sites/{site}")
        assert said["request"]
    assert {path.name for path in (workers.folder / "run" / "sites").iterdir()} == set(SITES)
    for site in SITES:
        assert hello(workers, plan, f"run/sites/{site}").status == "ok"
        with SiteHome(workers.folder / "run" / "sites" / site).open_ledger() as ledger:
            ledger.verify()
    workers.remove("run/sites")
    assert not (workers.folder / "run" / "sites").exists()


def test_arrays_come_as_they_are(workers, plan):
    images, labels = judges_of(workers, plan, cohort("judges"))
    again = judges_of(workers, plan, cohort("judges"))
    assert images.dtype == np.uint8 and len(images) == len(labels) >= 24
    assert np.array_equal(images, again[0]) and np.array_equal(labels, again[1])


def test_work_is_counted(workers, plan):
    before = workers.seconds
    judges_of(workers, plan, cohort("judges"))
    assert workers.seconds > before and workers.megabytes > 10
    assert workers.at_once >= workers.number == 2


def test_what_is_wrong_with_a_question_is_its_answer(workers, plan):
    with pytest.raises(DataError, match="does not know"):
        workers.ask({"do": "nothing"}, {})
    assert len(judges_of(workers, plan, cohort("judges"))[0]) >= 24


def test_a_worker_that_dies_costs_one_answer_and_no_home(workers, plan):
    name = secrets.token_hex(4)
    for site in SITES:
        make(workers, plan, site, f"{name}/{site}")
    for pid in descendants(os.getpid()):
        if b"sfumato_client.site.simulation" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, 9)
    said = []
    for site in [*SITES, *SITES]:
        try:
            said.append(hello(workers, plan, f"{name}/{site}").status)
        except FederationError as error:
            said.append("died" if "died" in str(error) else str(error))
    assert sorted(said) == ["died"] * 2 + ["ok"] * 4
    workers.remove(name)


def test_an_engine_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match="choose one of: processes, ray"), started(tmp_path, Where("dask")):
        pass
    with pytest.raises(ConfigError, match="--on ray"), started(tmp_path, Where(address="192.0.2.1:6379")):
        pass


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_ray_that_is_not_installed_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"sfumato\[ray\]"), started(tmp_path, Where(RAY)):
        pass
