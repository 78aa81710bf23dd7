"""The notebooks, executed from the first cell to the last as somebody would who opens them in a clean folder."""

import os
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest
from support.made_sets import published_set
from support.studies import POLICY

from sfumato_client.ingest import SiteImage
from sfumato_common.phantom import arrays
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan

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
    policy = {**POLICY, "release": {**POLICY["release"], "largest_set": 1000}, "noise": "secure"}
    held = {}
    for number, name in enumerate(plan.sites):
        images, labels, people = arrays(number, 200, plan.image.size, name)
        rows = zip(images, labels.tolist(), people.tolist(), strict=True)
        held[name] = [SiteImage(pixels, label, f"{name}-{person}", None) for pixels, label, person in rows]
    published = published_set(tmp_path, plan, policy, held)
    (tmp_path / "coordinator.pem").write_bytes((published / "coordinator.pem").read_bytes())
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
