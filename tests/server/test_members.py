"""Sites that leave, certificates that end, CAs that change: what the coordinator's commands do to all who ask."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.commands import speaker
from support.enrolment import enrol_site, sealed_grant
from support.studies import POLICY

from sfumato_client.egress import upload
from sfumato_client.flower.upload import uploader
from sfumato_client.site.home import SiteHome
from sfumato_common.crypto import certificates
from sfumato_common.crypto.enrolment import load_grant, renew_grant, require_current
from sfumato_common.crypto.signatures import fingerprint
from sfumato_common.errors import BusyError, ConfigError, FederationError, VerificationError
from sfumato_common.files import make_private_folder, write_json
from sfumato_common.locks import exclusive
from sfumato_common.protocol.messages import PROTOCOL, Reply, Request
from sfumato_server.coordinator.members import MembersChannel
from sfumato_server.enrol import (
    Registry,
    create_authority,
    expiry_notes,
    load_authority,
    renew,
    revoke,
    rotate_authority,
    rotate_server,
    unlock_authority,
)
from sfumato_server.intake import IntakeCredentials, IntakeServer
from sfumato_server.intake.admission import package_path


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    return speaker(monkeypatch, capsys)


@pytest.fixture
def hospital(consortium: Any, tmp_path: Path) -> Any:
    """The home of site 'north', whose identity a test may write to."""
    make_private_folder(tmp_path / "north")
    shutil.copytree(consortium.identities["north"].folder, tmp_path / "north" / "identity")
    (tmp_path / "north" / "policy.yaml").write_text(yaml.safe_dump({"site": "north", **POLICY}))
    own = replace(consortium.identities["north"], folder=tmp_path / "north" / "identity")
    consortium.identities["north"] = own
    write_json(consortium.home / "plan.json", consortium.plan.model_dump(mode="json"))
    return own


def age(consortium: Any, days: int, site: str = "north") -> bytes:
    """Issue the site's certificate anew as it would have been issued that many days ago, at both sides."""
    authority, identity = unlock_authority(consortium.home), consortium.identities[site]
    now = datetime.now(UTC) - timedelta(days=days)
    old = certificates.certify_site(authority, identity.tls_key.public_key(), site, now)
    file = consortium.home / "sites.json"
    known = json.loads(file.read_text())
    known["sites"][site]["certificate"] = old.decode()
    file.write_text(json.dumps(known))
    (identity.folder / "site.crt").write_bytes(old)
    return old


def served(consortium: Any) -> IntakeServer:
    authority = load_authority(consortium.home)
    files = (authority.server_key_path, authority.server_certificate_path)
    credentials = IntakeCredentials(*(path.read_bytes() for path in files), authority.ca_pem)
    return IntakeServer(consortium.home, consortium.plan, consortium.registry, "127.0.0.1:0", credentials)


def deliver(consortium: Any, address: str, identity: Any, timeout: float = 20.0) -> None:
    grant = load_grant(identity.folder)
    upload.upload_package(
        address,
        consortium.package(identity.site),
        ca_pem=grant.authority,
        certificate_pem=grant.certificate,
        key_pem=identity.tls_key_pem,
        site=identity.site,
        plan_hash=consortium.plan.digest,
        timeout=timeout,
    )


# renewal


def test_enrolling_again_never_returns_a_certificate_that_ended(consortium: Any, hospital: Any) -> None:
    for days in (800, 710):  # ended, and about to end
        old = age(consortium, days)
        grant = enrol_site(consortium.home, hospital)
        assert grant.certificate != old
        assert certificates.expiry_note(grant.certificate, "north") is None
        renew_grant(hospital, sealed_grant(consortium.home, grant))


def test_a_site_whose_certificate_ended_comes_back_with_its_plan_and_ledger(
    consortium: Any, hospital: Any, say: Any
) -> None:
    home = hospital.folder.parent
    for name in ("ledger.sqlite", "plans/p.json", "address.json"):
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text(f"as it was: {name}")
    age(consortium, 800)
    with pytest.raises(FederationError, match=r"ended on .* 'sfumato-site renew'"):
        require_current(hospital.folder)
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    registered = consortium.registry.sites()["north"]
    grant = home.parent / "north.grant.json"
    assert say("sfumato", "coordinator", "renew", "--home", consortium.home, "north", "--grant", grant)[0] == 0
    assert say("sfumato-site", "renew", "--home", home, grant)[0] == 0
    assert require_current(hospital.folder) is None
    after = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    assert {path.name for path in before if before[path] != after[path]} == {"site.crt"}
    assert set(after) == set(before)
    now = consortium.registry.sites()["north"]
    assert replace(now, certificate="", earlier=()) == replace(registered, certificate="", earlier=())
    server = served(consortium)
    try:
        deliver(consortium, server.start(), hospital)
    finally:
        server.stop(0.1)
    assert package_path(consortium.home, "north", "formal").exists()


def test_a_renewed_certificate_shuts_nobody_out_of_a_running_study(consortium: Any, hospital: Any) -> None:
    server = served(consortium)
    try:
        address = server.start()
        renew(consortium.home, "north")
        renew(consortium.home, "north")
        deliver(consortium, address, hospital)  # with the certificate that it still has
        revoke(consortium.home, "north")
        with pytest.raises(FederationError, match="not-enrolled"):
            deliver(consortium, address, hospital)
    finally:
        server.stop(0.1)


def test_renewal_takes_the_known_coordinators_newest_grant_only(consortium: Any, hospital: Any, tmp_path: Path) -> None:
    first = sealed_grant(consortium.home, renew(consortium.home, "north"))
    other = create_authority(tmp_path / "other").folder.parent
    with pytest.raises(VerificationError, match="not of the coordinator"):
        renew_grant(hospital, sealed_grant(other, enrol_site(other, hospital)), replace=True)
    kept = renew_grant(hospital, first)
    assert renew_grant(hospital, first) == kept
    old = age(consortium, 300)
    (hospital.folder / "site.crt").write_bytes(kept.certificate)
    older = replace(kept, certificate=old)
    with pytest.raises(VerificationError, match="older"):
        renew_grant(hospital, sealed_grant(consortium.home, older))


def test_revoked_and_unknown_sites_are_not_renewed(consortium: Any) -> None:
    revoke(consortium.home, "north")
    for site in ("north", "west"):
        with pytest.raises(FederationError):
            renew(consortium.home, site)


def test_a_site_is_told_that_its_certificate_ended_and_not_that_nobody_answers(consortium: Any, hospital: Any) -> None:
    home = SiteHome(hospital.folder.parent)
    write_json(home.root / "address.json", {"coordinator": "127.0.0.1:9"})
    age(consortium, 800)
    with pytest.raises(FederationError, match="ended on"):
        uploader(home)(consortium.package("north"), consortium.plan)


# what is said in time


@pytest.mark.parametrize(("days", "said"), [(0, None), (699, None), (701, "in 28 days"), (740, "ended on")])
def test_both_sides_speak_of_a_certificate_thirty_days_before_it_ends(
    consortium: Any, hospital: Any, days: int, said: str | None
) -> None:
    age(consortium, days)
    notes = expiry_notes(consortium.home, consortium.plan.sites)
    if said is None:
        assert notes == []
        assert require_current(hospital.folder) is None
        return
    assert [said in note and "site 'north'" in note for note in notes] == [True]
    if said.startswith("in"):
        assert said in (require_current(hospital.folder) or "")
    else:
        with pytest.raises(FederationError, match=said):
            require_current(hospital.folder)


def test_a_coordinator_whose_own_certificate_ended_does_not_start(consortium: Any) -> None:
    authority = consortium.authority
    long_ago = datetime.now(UTC) - timedelta(days=740)
    _, ended = certificates.issue_server_certificate(unlock_authority(consortium.home), ["c.example"], long_ago)
    authority.server_certificate_path.write_bytes(ended)
    with pytest.raises(ConfigError, match="sfumato coordinator rotate"):
        expiry_notes(consortium.home, consortium.plan.sites)
    rotate_server(consortium.home)
    assert expiry_notes(consortium.home, consortium.plan.sites) == []
    names = certificates.server_names(authority.server_certificate_path.read_bytes())
    assert {"c.example", "localhost", "127.0.0.1"} <= set(names)


# rotation


def test_a_new_server_certificate_is_not_noticed_by_sites(consortium: Any, hospital: Any) -> None:
    before = consortium.authority.server_certificate_path.read_bytes()
    rotate_server(consortium.home)
    assert consortium.authority.server_certificate_path.read_bytes() != before
    server = served(consortium)
    try:
        deliver(consortium, server.start(), hospital)
    finally:
        server.stop(0.1)


def test_a_new_ca_is_taken_when_asked_to_and_the_old_one_opens_nothing(consortium: Any, hospital: Any) -> None:
    revoke(consortium.home, "east")
    grants = rotate_authority(consortium.home)
    assert set(grants) == {"north", "south"}
    assert load_authority(consortium.home).public_key == consortium.authority.public_key
    server = served(consortium)
    try:
        address = server.start()
        with pytest.raises(FederationError):
            deliver(consortium, address, hospital, timeout=1.0)
        with pytest.raises(VerificationError, match="--replace"):
            renew_grant(hospital, sealed_grant(consortium.home, grants["north"]))
        renew_grant(hospital, sealed_grant(consortium.home, grants["north"]), replace=True)
        deliver(consortium, address, hospital)
    finally:
        server.stop(0.1)
    old = consortium.grants["north"].certificate
    with pytest.raises(FederationError):
        consortium.registry.by_certificate(old)


def test_the_commands_of_rotation(consortium: Any, hospital: Any, say: Any, tmp_path: Path) -> None:
    words = ("coordinator", "rotate", "--home", consortium.home)
    assert say("sfumato", *words)[0] == 0
    assert say("sfumato", *words, "--authority")[0] == ConfigError.exit_code
    with exclusive(consortium.home, "the study"):
        assert say("sfumato", *words)[0] == BusyError.exit_code
    assert say("sfumato", *words, "--authority", "--grants", tmp_path / "grants")[0] == 0
    made = {path.name for path in (tmp_path / "grants").iterdir()}
    assert made == {f"{site}.grant.json" for site in consortium.plan.sites}
    grant = tmp_path / "grants" / "north.grant.json"
    assert say("sfumato-site", "renew", "--home", hospital.folder.parent, grant)[0] == VerificationError.exit_code
    assert say("sfumato-site", "renew", "--home", hospital.folder.parent, grant, "--replace")[0] == 0


# revocation


class Recorder:
    """A channel whose sites all answer, and in which something may happen between question and answer."""

    def __init__(self, sites: Any, meanwhile: Any = lambda: None) -> None:
        self.sites, self.meanwhile, self.asked = set(sites), meanwhile, []

    def online(self) -> set[str]:
        return set(self.sites)

    def exchange(self, requests: Any, deadline_s: float, on_reply: Any, waited_for: Any) -> None:
        assert waited_for == set(requests), "nobody waits for a site that was not asked"
        self.asked.append(sorted(requests))
        self.meanwhile()
        for site in requests:
            assert on_reply(site, Reply(PROTOCOL, "ok", "", "", {}))


def exchange(channel: MembersChannel, sites: Any) -> dict[str, str]:
    """Status by site."""
    requests = {site: Request(PROTOCOL, "0" * 64, "hello", "", 0, {}) for site in sites}
    told: dict[str, str] = {}

    def take(site: str, reply: Reply) -> bool:
        told[site] = reply.code or reply.status
        return True

    channel.exchange(requests, 1.0, take, set(sites))
    return told


def test_a_revoked_site_is_out_within_one_exchange(consortium: Any) -> None:
    sites = list(consortium.plan.sites)
    recorder = Recorder(sites, lambda: revoke(consortium.home, "north"))
    channel = MembersChannel(recorder, Registry(consortium.home))
    assert channel.online() == set(sites)
    expected = {"east": "ok", "north": "revoked", "south": "ok"}
    # revoked while it worked: its answer is dropped; afterwards it is not asked, whoever asks
    assert exchange(channel, sites) == expected
    assert exchange(channel, sites) == expected
    assert recorder.asked == [sites, ["east", "south"]]
    assert channel.online() == {"east", "south"}


def test_members_are_listed_with_standing_fingerprint_and_end(consortium: Any, hospital: Any, say: Any) -> None:
    words = ("coordinator", "list", "--home", consortium.home)
    age(consortium, 710)
    for site, expected in (("east", 0), ("west", ConfigError.exit_code)):
        assert say("sfumato", "coordinator", "revoke", "--home", consortium.home, site, "--yes")[0] == expected
    code, _, said = say("sfumato", *words, "--json")
    report = json.loads(said)
    assert (code, report["fingerprint"]) == (0, fingerprint(consortium.authority.public_key))
    assert {name: (row["status"], row["standing"]) for name, row in report["sites"].items()} == {
        "east": ("revoked", "good"),
        "north": ("enrolled", "ends soon"),
        "south": ("enrolled", "good"),
    }
    assert report["sites"]["north"]["fingerprint"] == fingerprint(hospital.signing_public)
    assert report["CA"]["standing"] == report["ports"]["standing"] == "good"
    (consortium.home / "sites.json").unlink()
    assert "not enrolled" in say("sfumato", *words)[2]


def test_the_registry_of_an_earlier_version_is_read(consortium: Any) -> None:
    file = consortium.home / "sites.json"
    known = json.loads(file.read_text())
    for record in known["sites"].values():
        del record["earlier"]
    file.write_text(json.dumps(known))
    assert consortium.registry.by_certificate(consortium.grants["north"].certificate).earlier == ()
