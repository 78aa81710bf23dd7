"""Sites run installed code only: hostile bundles are neither unpacked nor run, whatever Flower would do with them."""

import io
import os
import subprocess
import zipfile
from types import SimpleNamespace

import pytest
from flwr.supercore.constant import TASK_TYPE_TO_COMMAND

from sfumato_client.flower.task import BundleRefused, inspect_bundle, install_hooks, write_task_commands
from sfumato_common.errors import VerificationError


def bundle(*names):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return stream.getvalue()


def test_description_only_passes():
    inspect_bundle(bundle("pyproject.toml", "README.md", ".info/CONTENT"))


@pytest.mark.parametrize(
    "name",
    [
        "sfumato_client/app.py",
        "torch.py",
        "evil.so",
        "../../escape.py",
        "README.md/x.py",
        "sitecustomize.py",
        "a.pth",
        "x",
    ],
)
def test_anything_else_is_refused(name):
    with pytest.raises(BundleRefused):
        inspect_bundle(bundle("pyproject.toml", "README.md", name))


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04truncated"])
def test_unreadable_bundle_is_refused(content):
    with pytest.raises(BundleRefused):
        inspect_bundle(content)


def test_the_hooks_exist_in_the_pinned_flower_and_replace_what_they_must():
    from flwr.supernode.runtime import run_clientapp as runtime

    kept = {name: getattr(runtime, name) for name in ("install_from_fab", "get_load_client_app_fn", "Error")}
    fake = SimpleNamespace(**kept, push_task_output=lambda **values: values)
    app = object()
    install_hooks(fake, app)
    assert fake.get_load_client_app_fn(default_app_ref="", app_path=None, multi_app=True)("id", "1", "hash") is app
    with pytest.raises(BundleRefused):
        fake.install_from_fab(bundle("pyproject.toml", "evil.py"), skip_prompt=True)
    error = fake.Error(code=1, reason="<class 'ValueError'>:<'/data/DOE^JANE/1.dcm'>")
    assert error.reason == "failed"
    assert fake.push_task_output(None, None, "failed", "DOE^JANE")["details"] == "failed"


def test_an_unknown_flower_is_refused():
    with pytest.raises(VerificationError, match="flwr=="):
        install_hooks(SimpleNamespace(), object())


def test_every_task_but_the_client_app_is_refused(tmp_path):
    write_task_commands(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(TASK_TYPE_TO_COMMAND.values())
    for command in set(TASK_TYPE_TO_COMMAND.values()) - {"flwr-clientapp"}:
        done = subprocess.run([tmp_path / command, "--token", "t"], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "refused" in done.stderr
    assert os.access(tmp_path / "flwr-clientapp", os.X_OK)
    assert " -P -m sfumato_client.flower.task" in (tmp_path / "flwr-clientapp").read_text()
