"""Sites run installed code only: hostile bundles are neither unpacked nor run, whatever Flower would do with them."""

import io
import zipfile
from types import SimpleNamespace

import pytest

from sfumato_client.egress import flower_hooks
from sfumato_client.egress.bundle import BundleRefused, inspect_bundle
from sfumato_client.egress.flower_hooks import Task, answer_task, install_task_hooks
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

    kept = {name: getattr(runtime, name) for name in flower_hooks._TASK_HOOKS}
    fake = SimpleNamespace(**{**kept, "push_task_output": lambda **values: values})
    app = object()
    install_task_hooks(fake, app)
    assert fake.get_load_client_app_fn(default_app_ref="", app_path=None, multi_app=True)("id", "1", "hash") is app
    with pytest.raises(BundleRefused):
        fake.install_from_fab(bundle("pyproject.toml", "evil.py"), skip_prompt=True)
    error = fake.Error(code=1, reason="<class 'ValueError'>:<'/data/DOE^JANE/1.dcm'>")
    assert error.reason == "failed"
    assert fake.push_task_output(None, None, "failed", "DOE^JANE")["details"] == "failed"


def test_an_unknown_flower_is_refused():
    with pytest.raises(VerificationError, match="flwr=="):
        install_task_hooks(SimpleNamespace(), object())


@pytest.mark.parametrize("for_client_app", [True, False])
def test_a_task_is_answered_by_the_installed_app_or_refused(monkeypatch, for_client_app):
    given = {}
    runtime = SimpleNamespace(
        install_from_fab=None, get_load_client_app_fn=None, push_task_output=None, Error=None,
        run_clientapp=lambda **values: given.update(values),
    )  # fmt: skip
    monkeypatch.setattr(flower_hooks, "import_module", lambda _: runtime)
    answer_task("127.0.0.1:1", Task("token", for_client_app), lambda **_: "answered")
    assert (given["token"], given["insecure"], given["runtime_dependency_install"]) == ("token", True, False)
    app = runtime.get_load_client_app_fn(default_app_ref="", app_path=None, multi_app=True)("id", "1", "hash")
    if for_client_app:
        assert app(message=1, context=2) == "answered"
    else:
        with pytest.raises(VerificationError, match="for an agent"):
            app(message=1, context=2)
