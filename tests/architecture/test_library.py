"""`import sfumato`: exactly what is exported, from where, at what price, and that every example runs."""

import ast
import doctest
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import sfumato

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(sfumato.__file__).read_text()
PAGE = (ROOT / "docs" / "library.md").read_text()
NAMES = {
    *("epsilon", "cost", "GaussianRelease", "SampledGaussian", "LaplaceRelease"),
    *("Ledger", "Budget", "SecureNoise", "NoiseRecorder", "Terms", "private_engine"),
    *("Glow", "ConditionalINN", "SpectralModel", "TorchDraws", "fit_spectral", "WSpace", "initial_model"),
    *("load_plan", "phantom_cohort", "group_patients", "k_salsa", "linear_walk", "plan_walk", "fit_recogniser"),
    *("random_features", "frechet_distance", "kernel_distance", "neighbourhood", "tstr", "verify_dataset"),
    "read_features",
    "PublishedDataset",
}


def test_exported_members():
    assert set(sfumato.__all__) == NAMES | {"__version__"}
    assert set(dir(sfumato)) == set(sfumato.__all__)
    for name in NAMES:
        found = getattr(sfumato, name)
        assert found.__doc__, name
        assert f"{found.__module__}:{found.__name__}".startswith(sfumato._HOMES[name].split(":")[0])
    with pytest.raises(AttributeError, match="no attribute 'epsilom'"):
        _ = sfumato.epsilom


def test_type_checkers_are_told_what_is_loaded():
    (block,) = [
        node
        for node in ast.parse(SOURCE).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    told = {alias.asname or alias.name: f"{line.module}:{alias.name}" for line in block.body for alias in line.names}
    assert told == sfumato._HOMES


def fresh(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    return done.stdout, done.stderr


def test_the_import_loads_nothing_else():
    heavy = "m.split('.')[0] in ('numpy', 'torch', 'pydantic') or m.startswith('sfumato')"
    said, _ = fresh(f"import sys, sfumato; print(sorted(m for m in sys.modules if {heavy}))")
    assert ast.literal_eval(said) == ["sfumato", "sfumato_common"]


def test_accounting_loads_no_torch():
    said, _ = fresh("import sys, sfumato; sfumato.epsilon, sfumato.GaussianRelease; print('torch' in sys.modules)")
    assert said == "False\n"


@pytest.mark.parametrize(
    ("name", "side", "distribution"),
    [("k_salsa", "sfumato_client", "sfumato-site"), ("verify_dataset", "sfumato_server", "sfumato-coordinator")],
)
def test_a_side_that_is_not_installed_is_named(monkeypatch, name, side, distribution):
    monkeypatch.delitem(sfumato.__dict__, name, raising=False)
    monkeypatch.setattr(sfumato, "find_spec", lambda asked: None if asked == side else object())
    with pytest.raises(ImportError, match=f"sfumato.{name} needs the distribution '{distribution}'"):
        getattr(sfumato, name)
    assert name not in dir(sfumato)
    assert "epsilon" in dir(sfumato)
    assert sfumato.epsilon


def test_the_page_lists_every_name_with_its_distribution():
    listed = dict(re.findall(r"^\| `(\w+)` \| .* \| ([\w-]+) \|$", PAGE, flags=re.MULTILINE))
    sides = {
        "sfumato-common": "sfumato_common",
        "sfumato-site": "sfumato_client",
        "sfumato-coordinator": "sfumato_server",
    }
    assert {name: sides[distribution] for name, distribution in listed.items()} == {
        name: home.split(".")[0] for name, home in sfumato._HOMES.items()
    }


def test_the_page_uses_every_name_and_its_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (plan,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "plan.yaml").write_text(plan)
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL))
    assert {name for name in NAMES if f"sfumato.{name}" in code} == NAMES
    names = {"Path": Path, "np": np, "torch": torch}
    check(doctest.DocTestParser().get_doctest(code, names, "library.md", "docs/library.md", 0))


def test_the_packages_own_example_runs():
    for found in doctest.DocTestFinder().find(sfumato, globs={}):
        check(found)


def check(example):
    said = []
    failed, tried = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append)
    assert not failed, "".join(said)
    return tried
