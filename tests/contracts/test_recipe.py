"""CONTRIBUTING's recipe "Add a generator", followed to the letter: one folder, two halves, one line."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOY = Path(__file__).parent / "toy_generator"
SIDES = ("common", "client", "server")
# what is written -> where the recipe says that it goes
PLACES = {
    "class_mean": "common/sfumato_common/generators/class_mean",
    "trainer.py": "client/sfumato_client/training/class_mean.py",
    "strategy.py": "server/sfumato_server/rounds/strategies/class_mean.py",
}
TABLE = "common/sfumato_common/generators/__init__.py"


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A copy of the three packages to which the toy generator was added."""
    folder = tmp_path_factory.mktemp("house")
    for side in SIDES:
        shutil.copytree(ROOT / side, folder / side, ignore=shutil.ignore_patterns("__pycache__"))
    for written, place in PLACES.items():
        (shutil.copytree if (TOY / written).is_dir() else shutil.copy)(TOY / written, folder / place)
    table = (folder / TABLE).read_text()
    imported = "from sfumato_common.generators.class_mean import CLASS_MEAN\n"
    with_toy = table.replace(
        "from sfumato_common.generators.embedding", imported + "from sfumato_common.generators.embedding"
    )
    with_toy = with_toy.replace("        FLOW,\n", "        FLOW,\n        CLASS_MEAN,\n")
    assert len(with_toy.splitlines()) == len(table.splitlines()) + 2, "one import and one line"
    (folder / TABLE).write_text(with_toy)
    return folder


def run(house, *arguments):
    paths = [*(house / side for side in SIDES), ROOT / "tests"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=280, env=environment
    )


def test_the_recipe_says_what_is_done_here():
    recipe = re.search(r"## Add a generator\n(.*?)\n## ", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)[1]
    for place in [*PLACES.values(), TABLE]:
        assert f"`{place.replace('class_mean', 'NAME')}" in recipe, place


def test_a_generator_of_one_folder_two_halves_and_one_line_is_trained_charged_released_and_verified(house, tmp_path):
    done = run(house, TOY / "study.py", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["package"] == str(house)
    assert seen["stages"] == ["hello", "spectral", "class-mean", "choice", "make", "send"]
    assert seen["candidates"] == ["spectral", "class-mean"]
    for purposes in seen["charged"].values():
        assert purposes[:3] == ["spectral", "class-mean", "choice"]
    assert seen["images"] == [["class-mean", "dp-sampling", "formal"]] * 24
    assert "24" in seen["report"]
    assert seen["drawn"] == ["class-mean", 4, 24, 24]


def test_everything_that_lists_kinds_lists_it(house):
    code = """
import json
from sfumato_common.study.policy import Policy
from sfumato_common.study.release import Sampling
from sfumato_common.strict import parse
from sfumato_common.errors import ConfigError
from sfumato_server.rounds.draws import draw_model
assert Sampling(model="class-mean", images=3).model == "class-mean"
assert "class-mean" in json.dumps(Policy.model_json_schema())
try:
    Sampling(model="class-men", images=3)
except ValueError as error:
    print(error)
"""
    done = run(house, "-c", code)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "'class-mean'" in done.stdout
