"""Code in the app bundle: whatever is packed, the site neither unpacks nor runs it, but what it installed."""

import io
import os
import struct
import subprocess
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from sfumato_client.egress.bundle import BundleRefused, inspect_bundle
from sfumato_client.egress.flower_hooks import install_task_hooks
from sfumato_client.egress.supernode import SuperNodeSettings, worker_command
from sfumato_client.flower.app import app

DESCRIPTION = {"pyproject.toml": b"[project]\nname = 'sfumato'\n", "README.md": b"x", ".info/CONTENT": b"x"}
BEYOND = "files beyond its description"
UNREADABLE = "not a readable zip"
LARGE = "larger than any description"


def zipped(files, compression=zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of (name, content) pairs; a name may come twice."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as bundle:
        for name, content in files:
            bundle.writestr(name, content)
    return stream.getvalue()


def bundle(*extra) -> bytes:
    return zipped([*DESCRIPTION.items(), *((name, b"raise SystemExit") for name in extra)])


SHADOWS = [
    "sfumato_client/__init__.py",
    "sfumato_client/app.py",
    "sfumato_common/privacy/noise.py",
    "torch.py",
    "torch/__init__.py",
    "numpy.py",
    "numpy/__init__.pyc",
    "flwr/__init__.py",
    "random.py",
    "sitecustomize.py",
    "usercustomize.py",
    "evil.pth",
    "conftest.py",
    "evil.so",
    "__pycache__/app.cpython-311.pyc",
    "deep/down/in/a/folder/app.py",
    "/etc/cron.d/evil",
    "/evil.py",
    "../evil.py",
    "../../sfumato_client/app.py",
    "README.md/../../evil.py",
    "./pyproject.toml",
    "..\\evil.py",
    "C:\\evil.py",
    "PYPROJECT.TOML",
    "PyProject.toml",
    "readme.md",
    "README.md ",
    "README.MD",
    "pyproject.toml.py",
    ".info/content",
    ".info/CONTENT/app.py",
    ".info/other",
    "requirements.txt",
    "setup.py",
    "pyproject.toml/",
    "sfumato_client/",
    "README\u200b.md",
]


@pytest.mark.parametrize("name", SHADOWS)
def test_any_file_beyond_the_description_is_refused(name):
    with pytest.raises(BundleRefused, match=BEYOND):
        inspect_bundle(bundle(name))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", list(DESCRIPTION))
def test_a_name_given_twice_is_refused(name):
    with pytest.raises(BundleRefused, match=BEYOND):
        inspect_bundle(zipped([*DESCRIPTION.items(), (name, b"[tool.flwr.app.components]\nclientapp = 'evil:app'")]))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_thousands_of_entries_of_a_harmless_name_are_refused():
    with pytest.raises(BundleRefused, match=BEYOND):
        inspect_bundle(zipped([("pyproject.toml", b"")] * 20_000))


def test_a_name_that_ends_at_a_zero_byte_is_refused():
    # zipfile shows 'README.md'; another reader may show all of it
    content = zipped([("pyproject.toml", b"x"), ("README.mdXevil.py", b"x")])
    with pytest.raises(BundleRefused, match=BEYOND):
        inspect_bundle(content.replace(b"README.mdXevil.py", b"README.md\0evil.py"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        b"import os",
        b"\x1f\x8b\x08\x00gzip",
        bundle()[:-30],
        bundle()[:200],
        bytes(10_000),
    ],
)
def test_what_is_no_zip_is_refused(content):
    with pytest.raises(BundleRefused, match=UNREADABLE):
        inspect_bundle(content)


def test_an_entry_that_unpacks_to_gigabytes_is_refused_without_unpacking_it():
    swollen = zipped([("pyproject.toml", b"x"), ("README.md", bytes(40 * 2**20))])
    assert len(swollen) < 100_000
    with pytest.raises(BundleRefused, match=LARGE):
        inspect_bundle(swollen)


def test_a_bundle_that_lies_about_its_sizes_is_harmless():
    # the sizes in the directory say 1 byte: nothing is unpacked, so nothing can swell
    content = zipped([("README.md", bytes(2**20))])
    inspect_bundle(content.replace(struct.pack("<I", 2**20), struct.pack("<I", 1)))


@pytest.fixture
def runtime():
    from flwr.supernode.runtime import run_clientapp as real

    names = ("install_from_fab", "get_load_client_app_fn", "Error", "run_clientapp")
    fake = SimpleNamespace(**{name: getattr(real, name) for name in names}, push_task_output=lambda **values: values)
    install_task_hooks(fake, app)
    return fake


@pytest.mark.parametrize(
    "component",
    ["evil:app", "sfumato_server.coordinator.app:app", "os:system", "sfumato_client.flower.app:answer", "/evil.py:app"],
)
def test_a_description_that_points_elsewhere_changes_nothing(runtime, tmp_path, monkeypatch, component):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr"))
    monkeypatch.chdir(tmp_path)
    text = f"[tool.flwr.app.components]\nclientapp = '{component}'\n[project]\ndependencies = ['evil']\n"
    runtime.install_from_fab(zipped([("pyproject.toml", text.encode()), ("README.md", b"x")]), skip_prompt=True)
    load = runtime.get_load_client_app_fn(default_app_ref=component, app_path=str(tmp_path), multi_app=True)
    assert load("sfumato/evil", "1.0", "0" * 64) is app
    assert list(tmp_path.iterdir()) == [], "nothing was unpacked"


@pytest.mark.parametrize("name", ["sfumato_client/app.py", "../evil.py", "sitecustomize.py"])
def test_the_runner_stops_before_it_loads_anything(runtime, tmp_path, monkeypatch, name):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleRefused) as refused:
        runtime.install_from_fab(bundle(name), skip_prompt=True)
    error = runtime.Error(code=1, reason=f"{type(refused.value)}:<'{refused.value}'>")
    assert error.reason == "bundle-refused"
    assert list(tmp_path.iterdir()) == []


def test_a_module_in_the_working_folder_does_not_shadow_the_installed_one(tmp_path):
    # the worker as the site starts it, in a folder that a hostile bundle could have filled
    ran = tmp_path / "ran"
    for name in ("flwr.py", "sfumato_client.py", "sitecustomize.py", "usercustomize.py", "torch.py", "numpy.py"):
        (tmp_path / name).write_text(f"open({str(ran)!r}, 'a').write({name!r})\n")
    home = Path("home")
    settings = SuperNodeSettings("c:1", home, home, home, home, home, home, home, 1)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [*worker_command(settings), "--help"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()
    assert not ran.exists(), ran.read_text()
