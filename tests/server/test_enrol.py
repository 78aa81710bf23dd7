import json
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from support.enrolment import enrol_site

from sfumato_common.crypto.enrolment import enrolment_request
from sfumato_common.crypto.identity import create_identity
from sfumato_common.crypto.signatures import fingerprint
from sfumato_common.errors import ConfigError, FederationError, VerificationError
from sfumato_server.enrol import Registry, create_authority, enrol, load_authority, revoke


def test_authority_survives_reloading_and_keys_are_private(tmp_path: Path) -> None:
    made = create_authority(tmp_path, ["coordinator.example.org"])
    again = load_authority(tmp_path)
    assert (again.ca_pem, again.public_key) == (made.ca_pem, made.public_key)
    for name in ("ca.key", "server.key", "signing.pem"):
        assert stat.S_IMODE((made.folder / name).stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match="already"):
        create_authority(tmp_path)
    with pytest.raises(ConfigError, match="create one"):
        load_authority(tmp_path / "elsewhere")


def test_enrolled_sites_are_found_by_name_and_by_certificate(consortium: Any) -> None:
    grant = consortium.grants["north"]
    record = consortium.registry.by_certificate(grant.certificate)
    assert record == consortium.registry.record_in_force("north")
    assert record.signing_key.encode() == consortium.identities["north"].signing_public
    assert grant.coordinator_key == consortium.authority.public_key
    assert set(consortium.registry.sites()) == {"east", "north", "south"}


def test_enrolling_again_with_the_same_keys_gives_the_same_certificate(consortium: Any) -> None:
    again = enrol_site(consortium.home, consortium.identities["north"])
    assert again == consortium.grants["north"]


def test_a_taken_name_is_refused(consortium: Any, tmp_path: Path) -> None:
    impostor = create_identity(tmp_path / "impostor", "north")
    with pytest.raises(VerificationError, match="taken"):
        enrol_site(consortium.home, impostor)
    assert consortium.registry.by_certificate(consortium.grants["north"].certificate).site == "north"


def test_another_sites_node_key_cannot_be_claimed(consortium: Any, tmp_path: Path) -> None:
    impostor = create_identity(tmp_path / "impostor", "west")
    borrowed = type(impostor)(
        impostor.folder, "west", impostor.signing_key, consortium.identities["north"].node_key, impostor.tls_key
    )
    with pytest.raises(VerificationError, match="one of these keys"):
        enrol_site(consortium.home, borrowed)
    assert "west" not in consortium.registry.sites()


def test_an_altered_request_registers_nobody(consortium: Any, tmp_path: Path) -> None:
    identity = create_identity(tmp_path / "west", "west")
    request, told = bytearray(enrolment_request(identity)), fingerprint(identity.signing_public)
    for at in range(0, len(request), 97):
        altered = bytearray(request)
        altered[at] ^= 1
        with pytest.raises(VerificationError):
            enrol(consortium.home, bytes(altered), told, ["west", *consortium.plan.sites])
    assert "west" not in consortium.registry.sites()


def test_a_revoked_site_is_out_at_once_and_for_good(consortium: Any) -> None:
    revoke(consortium.home, "north")
    for question in (
        lambda: consortium.registry.record_in_force("north"),
        lambda: consortium.registry.by_certificate(consortium.grants["north"].certificate),
        lambda: enrol_site(consortium.home, consortium.identities["north"]),
    ):
        with pytest.raises(FederationError, match="revoked"):
            question()
    with pytest.raises(ConfigError, match="nothing to revoke"):
        revoke(consortium.home, "west")


def test_unknown_sites_and_certificates_are_refused(consortium: Any, tmp_path: Path) -> None:
    create_authority(tmp_path / "foreign")
    foreign = enrol_site(tmp_path / "foreign", consortium.identities["north"])
    for certificate in (foreign.certificate, b"nonsense"):
        with pytest.raises(FederationError):
            consortium.registry.by_certificate(certificate)
    with pytest.raises(FederationError, match="not enrolled"):
        consortium.registry.record_in_force("west")


def test_parallel_enrolments_lose_nobody(tmp_path: Path) -> None:
    home = tmp_path / "home"
    create_authority(home)
    identities = [create_identity(tmp_path / f"s{at}", f"s{at}") for at in range(8)]
    threads = [threading.Thread(target=enrol_site, args=(home, identity)) for identity in identities]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Registry(home).sites()) == 8


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format":"sfumato-sites/1","sites":{"north":{"status":"x"}}}'])
def test_a_damaged_registry_is_one_clear_error(consortium: Any, text: str) -> None:
    (consortium.home / "sites.json").write_text(text)
    with pytest.raises(ConfigError, match="damaged"):
        consortium.registry.sites()


def test_the_registry_holds_no_private_key(consortium: Any) -> None:
    text = (consortium.home / "sites.json").read_text()
    assert "PRIVATE" not in text
    assert json.loads(text)["sites"]["north"]["status"] == "enrolled"
