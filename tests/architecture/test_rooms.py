"""The import contracts hold for the modules of tomorrow too: what is planted in any room is found."""

import ast
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SIDES = ("common", "client", "server")
CLIENT = ROOT / "client" / "sfumato_client"
MAY_REACH = {"egress", "flower", "pacs"}  # `review` is served by Starlette, and opens nothing by itself
ROOMS = sorted(path.parent.name for path in CLIENT.glob("*/__init__.py"))
NETWORK = "Only egress, flower, pacs and review reach network, processes or Flower"


def lint(folder):
    # the same command as `make lint`; importing the copy, not the checkout
    paths = [str(folder / side) for side in SIDES]
    code = f"import sys; sys.path[:0] = {paths!r}; from importlinter.cli import lint_imports_command as run; run()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--no-cache"], cwd=folder, capture_output=True, text=True, timeout=240
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """The report on a copy of the house with `import socket` in a new module of every room, and at the root."""
    folder = tmp_path_factory.mktemp("house")
    for side in SIDES:
        shutil.copytree(ROOT / side, folder / side, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for room in ROOMS:
        (folder / "client" / "sfumato_client" / room / "planted.py").write_text("import socket\n")
    (folder / "client" / "sfumato_client" / "planted.py").write_text("import socket\n")
    inside = "import subprocess\nimport sfumato_client.ledger\n"
    (folder / "client" / "sfumato_client" / "pacs" / "more.py").write_text(inside)
    (folder / "client" / "sfumato_client" / "egress" / "more.py").write_text("import sfumato_client.pacs.settings\n")
    code, said = lint(folder)
    assert code != 0
    return said


def test_there_are_about_a_dozen_rooms_a_side_and_no_loose_modules():
    assert len(ROOMS) <= 14, "one for the hospital's network, and one for the stewards' page, apart from all others"
    for side in ("client/sfumato_client", "server/sfumato_server"):
        loose = {path.name for path in (ROOT / side).glob("*.py")}
        assert loose <= {"__init__.py"}
        assert len(list((ROOT / side).glob("*/__init__.py"))) <= 14


@pytest.mark.parametrize("room", ROOMS)
def test_a_new_module_is_inside_the_network_rule_by_default(planted, room):
    found = f"sfumato_client.{room}.planted -> socket" in planted
    assert found == (room not in MAY_REACH)


def test_a_new_loose_module_breaks_both_the_network_rule_and_the_floors(planted):
    assert "sfumato_client.planted -> socket" in planted
    assert f"{NETWORK} BROKEN" in planted
    assert "Floors of the site BROKEN" in planted


def test_the_pacs_room_reaches_the_hospitals_network_and_nothing_of_the_site(planted):
    assert "The PACS room reaches neither ledger, store nor egress BROKEN" in planted
    assert "None but the command line reaches the PACS room BROKEN" in planted
    assert "sfumato_client.pacs.more -> sfumato_client.ledger" in planted
    assert "sfumato_client.pacs.more -> subprocess" in planted
    assert "sfumato_client.egress.more -> sfumato_client.pacs.settings" in planted


def test_importing_the_round_loop_loads_no_page_and_no_network():
    heavy = "{'jinja2', 'grpc', 'flwr', 'rich', 'PIL'}"
    code = f"import sys, sfumato_server.rounds.loop; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert ast.literal_eval(done.stdout) == []


@pytest.mark.parametrize(
    "module",
    [
        "sfumato_common.study.plan",
        "sfumato_common.study.load",
        "sfumato_common.study.forecast",
        "sfumato_client.ledger",
        "sfumato_client.cli.main",
        "sfumato_server.cli.main",
    ],
)
def test_reading_a_plan_loads_no_networks(module):
    heavy = "{'torch', 'opacus', 'scipy', 'safetensors'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert ast.literal_eval(done.stdout) == []


def test_the_contracts_cover_every_package_of_the_tree():
    roots = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
    assert sorted(roots) == sorted(
        path.parent.name for side in SIDES for path in (ROOT / side).glob("sfumato*/__init__.py")
    )
