"""The notebooks, executed from the first cell to the last as somebody would who opens them in a clean folder."""

import os
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest
from support.enrolment import enrol_site
from support.federations import Federation, make_coordinator
from support.homes import make_home
from support.studies import POLICY

from sfumato_client.site.handler import Site
from sfumato_common.crypto.identity import load_identity
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.coordinator.study import run_study
from sfumato_server.enrol import Registry, load_authority
from sfumato_server.pool import pool_packages
from sfumato_server.publish import publish
from sfumato_server.simulate.home import take_package

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "notebooks"
NAMES = ("consortium", "researcher")
MEASURE = """\
import resource
sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
"""
# of one core: what the notebooks say of themselves
SECONDS = 180
STUDY = {
    "study": "practice",
    "image": {"size": 32},
    "labels": ["normal", "opacity"],
    "sites": {site: {"nominal_patients": 160} for site in ("alder", "birch")},
    "privacy": {"epsilon": 10.0, "delta": 1e-5},
    "stages": [{
        "kind": "spectral", "bandwidth": 8, "clip_radius": 1.8, "spread_radius": 0.9, "radii": "charged",
        "noise_multiplier": 0.5004,
    }],
    "release": [{"model": "spectral", "images": 200}],
    "federation": {"quorum": 2},
}  # fmt: skip


@pytest.fixture
def practice(tmp_path, monkeypatch):
    """A folder as the coordinator's first hour leaves it: a set in `results/published`, and the key."""
    plan = parse(STUDY, Plan, "plan")
    coordinator = make_coordinator(tmp_path / "coord", plan)
    policy = {**POLICY, "release": {**POLICY["release"], "largest_set": 1000}, "noise": "secure"}
    sites = {}
    for name in plan.sites:
        home = make_home(tmp_path / name, name, plan, policy, 200)
        enrol_site(coordinator.root, load_identity(home.identity))
        sites[name] = Site(home, lambda data, plan, name=name: take_package(coordinator, plan, name, data))
    assert run_study(coordinator, Federation(tmp_path, plan, coordinator, sites), seed=1) == "completed"
    pool = pool_packages(coordinator.root, plan, Registry(coordinator.root))
    publish(pool, plan, tmp_path / "results", load_authority(coordinator.root), {"exchanges": []}, None)
    (tmp_path / "coordinator.pem").write_bytes((tmp_path / "results" / "published" / "coordinator.pem").read_bytes())
    return tmp_path


def executed(name, folder):
    """The notebook with its outputs; the kernel's own processor seconds are its last output."""
    book = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    book.cells.append(nbformat.v4.new_code_cell(MEASURE))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    client = nbclient.NotebookClient(book, timeout=1800, resources={"metadata": {"path": str(folder)}})
    client.execute(env=environment)
    *shown, spent = [cell.outputs for cell in book.cells if cell.cell_type == "code"]
    seconds = float(spent[0]["data"]["text/plain"])
    print(f"{name}.ipynb: {seconds:.0f} s of a processor")
    assert seconds < SECONDS
    return shown


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_kept_without_its_outputs(name):
    book = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(book)
    assert len(book.cells) > 6
    assert not [cell for cell in book.cells if cell.get("outputs") or cell.get("execution_count")]
    assert not [line for cell in book.cells for line in cell.source.splitlines() if len(line) > 240]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_researchers_notebook(practice):
    shown = executed("researcher", practice)
    assert shown[1][0]["data"]["text/plain"] == "True"
    assert any("image/png" in output.get("data", {}) for outputs in shown for output in outputs)
    figures = eval(shown[-1][0]["data"]["text/plain"])
    assert set(figures) == {"the set", "real images"}
    # a set whose labels say nothing, or are exchanged, gives one half or less
    assert figures["the set"] > 0.55


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_consortiums_notebook(tmp_path):
    shown = executed("consortium", tmp_path)
    chosen, file = eval(shown[-1][0]["data"]["text/plain"])
    assert chosen[0] in (1.0, 10.0)
    assert (tmp_path / file).exists()
    assert len(list(tmp_path.glob("*/simulation.json"))) == 4
