"""The CA's key opens for the command that enrols, with its passphrase, and for nothing else."""

import io
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives import serialization

from sfumato_common.crypto import certificates
from sfumato_common.crypto.enrolment import enrolment_request
from sfumato_common.crypto.identity import create_identity
from sfumato_common.errors import ConfigError
from sfumato_server.cli.passphrase import ask_passphrase
from sfumato_server.coordinator.run import Listen, run_coordinator
from sfumato_server.enrol import create_authority, enrol, load_authority, unlock_authority
from sfumato_server.enrol.authority import PASSPHRASE_VARIABLE
from sfumato_server.enrol.authority import SCRYPT_COST as SHIPPED_COST

RIGHT = b"a long passphrase"


@pytest.fixture(autouse=True)
def _nothing_in_the_environment(monkeypatch):
    monkeypatch.delenv(PASSPHRASE_VARIABLE)


@pytest.fixture
def home(tmp_path):
    create_authority(tmp_path / "coordinator", passphrase=RIGHT)
    return tmp_path / "coordinator"


def test_the_key_on_disk_is_encrypted_under_the_stretched_passphrase(home):
    pem = (home / "authority" / "ca.key").read_bytes()
    assert pem.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    with pytest.raises(TypeError):
        serialization.load_pem_private_key(pem, None)
    with pytest.raises(ValueError):
        serialization.load_pem_private_key(pem, RIGHT)
    assert unlock_authority(home, RIGHT).certificate == load_authority(home).ca_certificate
    assert SHIPPED_COST >= 2**15, "what a guess costs; tests lower it"


def test_what_the_run_loads_holds_no_key_of_the_ca(home):
    (home / "authority" / "ca.key").unlink()  # kept offline
    authority = load_authority(home)
    ca = authority.ca_certificate.public_key()
    held = [value for value in vars(authority).values() if hasattr(value, "private_bytes")]
    assert [key.public_key() == ca for key in held] == [False], "the signing key alone"
    for path in (home / "authority").iterdir():
        if b"PRIVATE" in path.read_bytes():
            assert serialization.load_pem_private_key(path.read_bytes(), None).public_key() != ca


@pytest.mark.parametrize("given", [b"another passphrase", RIGHT + b" ", RIGHT[:-1]])
def test_another_passphrase_opens_nothing(home, given):
    with pytest.raises(ConfigError, match="does not open"):
        unlock_authority(home, given)


@pytest.mark.parametrize("given", [None, b"", b"short"])
def test_no_key_is_made_or_opened_without_one(home, tmp_path, given):
    with pytest.raises(ConfigError, match="at least 12"):
        unlock_authority(home, given)
    with pytest.raises(ConfigError, match="at least 12"):
        create_authority(tmp_path / "other", passphrase=given)
    assert not (tmp_path / "other").exists()


def test_two_homes_with_one_passphrase_have_two_passwords(home, tmp_path):
    create_authority(tmp_path / "other", passphrase=RIGHT)
    shutil.copy(tmp_path / "other" / "authority" / "ca.key", home / "authority" / "ca.key")
    with pytest.raises(ConfigError, match="does not open"):
        unlock_authority(home, RIGHT)


def test_a_key_that_was_never_locked_is_refused(home):
    plain = certificates.private_key_pem(certificates.create_certificate_authority().key)
    (home / "authority" / "ca.key").write_bytes(plain)
    with pytest.raises(ConfigError, match="does not open"):
        unlock_authority(home, RIGHT)


def test_enrolling_needs_the_key_and_asking_again_does_not(home, tmp_path):
    request = enrolment_request(create_identity(tmp_path / "north", "north"))
    with pytest.raises(ConfigError, match="does not open"):
        enrol(home, request, passphrase=b"another passphrase")
    granted = enrol(home, request, passphrase=RIGHT)
    (home / "authority" / "ca.key").rename(tmp_path / "ca.key")
    assert enrol(home, request) == granted
    other = enrolment_request(create_identity(tmp_path / "south", "south"))
    with pytest.raises(ConfigError, match="key is not here"):
        enrol(home, other, passphrase=RIGHT)


def test_a_run_that_could_sign_does_not_start(home, monkeypatch, tmp_path):
    monkeypatch.setenv(PASSPHRASE_VARIABLE, RIGHT.decode())
    with pytest.raises(ConfigError, match="must not be able to enrol"):
        run_coordinator(home, tmp_path / "out", Listen("127.0.0.1", 1, 2))


def test_only_the_enrolling_commands_may_open_it():
    # by name: what else would import or call it could sign
    source = Path(sys.modules["sfumato_server"].__file__).parent
    users = {path.relative_to(source).as_posix() for path in source.rglob("*.py") if "unlock_" in path.read_text()}
    assert users == {"enrol/__init__.py", "enrol/authority.py", "enrol/registry.py"}


def test_the_passphrase_comes_from_a_file_or_standard_input_or_the_environment(tmp_path, monkeypatch):
    (tmp_path / "passphrase").write_bytes(RIGHT + b"\r\n")
    assert ask_passphrase(tmp_path / "passphrase") == RIGHT
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(RIGHT + b"\n"), isatty=lambda: False))
    assert ask_passphrase(Path("-")) == RIGHT
    with pytest.raises(ConfigError, match="nobody can be asked"):
        ask_passphrase(None)
    monkeypatch.setenv(PASSPHRASE_VARIABLE, RIGHT.decode())
    assert ask_passphrase(None) == RIGHT


def test_a_person_is_asked_without_an_echo_and_twice_for_a_new_key(monkeypatch):
    asked = {}
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("typer.prompt", lambda text, **how: asked.update(how) or RIGHT.decode())
    assert ask_passphrase(None, new=True) == RIGHT
    assert asked == {"hide_input": True, "confirmation_prompt": True}
