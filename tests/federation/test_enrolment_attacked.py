"""Attacks on enrolment: documents made by somebody else, names that nobody agreed on, keys that the claimant lacks."""

import json
import shutil
import sys

import pytest
import yaml
from support.commands import speaker
from support.studies import PLAN, POLICY

from sfumato_common.crypto import signatures
from sfumato_common.crypto.certificates import certificate_pem, create_certificate_authority, issue_site_certificate
from sfumato_common.crypto.enrolment import EnrolmentGrant, encode_grant, enrolment_request, read_request
from sfumato_common.crypto.identity import create_identity, load_identity
from sfumato_common.errors import ConfigError, FederationError, VerificationError
from sfumato_common.files import canonical_json
from sfumato_server.enrol import Registry, enrol, load_authority

PORTS = ("--coordinator", "coordinator.example:8443")
EVIL = ("--coordinator", "evil.example:1")


@pytest.fixture
def say(monkeypatch, capsys):
    return speaker(monkeypatch, capsys)


@pytest.fixture
def federation(tmp_path, say):
    """A coordinator's home and a site's, neither of which knows the other yet, and what each prints of itself."""
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    for name in ("alder", "nobody-knows"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"site": name, **POLICY}))
    coordinator(say, tmp_path, "coord")
    site(say, tmp_path, "alder")
    return tmp_path


def coordinator(say, root, name):
    code, _, said = say("sfumato", "coordinator", "init", "--home", root / name, "--plan", root / "plan.yaml")
    assert code == 0
    assert told(say, root, name, "sfumato") in said


def site(say, root, folder, name="alder"):
    code, _, said = say("sfumato-site", "init", "--home", root / folder, "--policy", root / f"{name}.yaml")
    assert code == 0
    assert told(say, root, folder) in said


def told(say, root, folder, program="sfumato-site"):
    """What its people read out over the telephone."""
    words = ("coordinator", "fingerprint") if program == "sfumato" else ("fingerprint",)
    return say(program, *words, "--home", root / folder)[2].strip()


def sign(say, root, fingerprint, coordinator="coord", request="alder"):
    """(exit code, the one line) of the coordinator's `enrol`; the grant goes to COORDINATOR.json."""
    words = ("coordinator", "enrol", "--home", root / coordinator, root / request / "enrolment-request.json")
    return say("sfumato", *words, "--grant", root / f"{coordinator}.json", "--fingerprint", fingerprint)[:2]


def join(say, root, fingerprint, grant="coord", *more):
    words = ("join", "--home", root / "alder", root / f"{grant}.json", *(more or PORTS))
    return say("sfumato-site", *words, "--fingerprint", fingerprint)[:2]


def kept(root):
    """What the site holds of a coordinator."""
    names = ("site.crt", "ca.crt", "coordinator.pem")
    files = [*(root / "alder" / "identity" / name for name in names), root / "alder" / "address.json"]
    return [path.read_bytes() if path.exists() else None for path in files]


def test_people_who_compare_are_enrolled(federation, say):
    assert sign(say, federation, told(say, federation, "alder")) == (0, "")
    assert join(say, federation, told(say, federation, "coord", "sfumato").upper()) == (0, "")
    before = kept(federation)
    assert None not in before
    assert join(say, federation, told(say, federation, "coord", "sfumato")) == (0, "")
    assert kept(federation) == before


def test_an_address_where_nobody_answers_is_told_as_it_is_entered(federation, say):
    """The grant is kept all the same: a coordinator answers nobody before its study runs."""
    sign(say, federation, told(say, federation, "alder"))
    words = ("join", "--home", federation / "alder", federation / "coord.json", "--coordinator", "127.0.0.1:9")
    code, _, said = say("sfumato-site", *words, "--fingerprint", told(say, federation, "coord", "sfumato"))
    assert code == 0
    assert None not in kept(federation)
    assert "coordinator 127.0.0.1:9: " in said
    assert "if its study is not running yet, that is why" in said


def test_a_request_made_in_the_sites_place_is_refused(federation, say):
    """The man in the middle of the mail puts keys of his own under alder's name."""
    (federation / "mitm").mkdir()
    site(say, federation, "mitm/alder")
    code, line = sign(say, federation, told(say, federation, "alder"), request="mitm/alder")
    assert code == VerificationError.exit_code
    assert "another fingerprint" in line
    assert Registry(federation / "coord").sites() == {}
    assert not (federation / "coord.json").exists()
    # and the name is still free for the site itself
    assert sign(say, federation, told(say, federation, "alder")) == (0, "")


def test_a_grant_made_in_the_coordinators_place_is_refused(federation, say):
    """Anybody can answer alder's public request with a CA of his own."""
    coordinator(say, federation, "evil")
    assert sign(say, federation, told(say, federation, "alder"), "evil") == (0, "")
    code, line = join(say, federation, told(say, federation, "coord", "sfumato"), "evil", *EVIL)
    assert code == VerificationError.exit_code
    assert "another fingerprint" in line
    assert kept(federation) == [None] * 4


def test_a_grant_with_parts_exchanged_is_refused(federation, say):
    """The true coordinator's key and certificate, another CA beside them: the one signature covers all of it."""
    assert sign(say, federation, told(say, federation, "alder")) == (0, "")
    coordinator(say, federation, "evil")
    assert sign(say, federation, told(say, federation, "alder"), "evil") == (0, "")
    true, evil = (json.loads((federation / f"{name}.json").read_text()) for name in ("coord", "evil"))
    fingerprint = told(say, federation, "coord", "sfumato")
    for field in ("certificate", "authority"):
        mixed = {**true, "body": {**true["body"], field: evil["body"][field]}}
        (federation / "mixed.json").write_bytes(canonical_json(mixed))
        assert join(say, federation, fingerprint, "mixed")[0] == VerificationError.exit_code
    both = {name: evil["body"][name] for name in ("certificate", "authority")}
    (federation / "mixed.json").write_bytes(canonical_json({**true, "body": {**true["body"], **both}}))
    assert join(say, federation, fingerprint, "mixed")[0] == VerificationError.exit_code
    assert kept(federation) == [None] * 4


def test_another_coordinator_takes_the_firsts_place_only_when_asked_to(federation, say):
    sign(say, federation, told(say, federation, "alder"))
    join(say, federation, told(say, federation, "coord", "sfumato"))
    before = kept(federation)
    coordinator(say, federation, "second")
    sign(say, federation, told(say, federation, "alder"), "second")
    fingerprint = told(say, federation, "second", "sfumato")
    code, line = join(say, federation, fingerprint, "second", *EVIL)
    assert (code, "--replace" in line) == (VerificationError.exit_code, True)
    assert kept(federation) == before
    assert join(say, federation, fingerprint, "second", *EVIL, "--replace") == (0, "")
    assert not set(kept(federation)) & set(before)


def test_another_ca_of_the_same_coordinator_is_not_taken_unasked(federation, say):
    sign(say, federation, told(say, federation, "alder"))
    join(say, federation, told(say, federation, "coord", "sfumato"))
    before = kept(federation)
    identity, authority = load_identity(federation / "alder" / "identity"), load_authority(federation / "coord")
    other, request = create_certificate_authority(), read_request(enrolment_request(identity))
    certificate = issue_site_certificate(other, request.certificate_request.encode(), "alder")
    grant = EnrolmentGrant(certificate, certificate_pem(other.certificate), authority.public_key)
    (federation / "other.json").write_bytes(encode_grant(grant, authority.signing_key))
    code, line = join(say, federation, told(say, federation, "coord", "sfumato"), "other")
    assert (code, "another CA" in line) == (VerificationError.exit_code, True)
    assert kept(federation) == before


def test_a_name_outside_the_plan_is_not_enrolled(federation, say):
    site(say, federation, "nobody", "nobody-knows")
    code, line = sign(say, federation, told(say, federation, "nobody"), request="nobody")
    assert code == FederationError.exit_code
    assert "names no site 'nobody-knows'" in line
    # also where no fingerprint was told yet: nobody is asked for one
    words = ("--home", federation / "coord", federation / "nobody" / "enrolment-request.json", "--grant", "g.json")
    assert "names no site 'nobody-knows'" in say("sfumato", "coordinator", "enrol", *words)[1]
    assert Registry(federation / "coord").sites() == {}


@pytest.mark.parametrize("claimed", ["node_key", "signing_key", "certificate_request"])
def test_a_key_is_claimed_only_by_who_holds_it(federation, claimed):
    """'early' puts a public key of its victim into a request of its own, and signs with all keys that it has."""
    early, victim = (create_identity(federation / name / "identity", "birch") for name in ("early", "victim"))
    stolen = json.loads(enrolment_request(victim))["body"][claimed]
    body = {**json.loads(enrolment_request(early))["body"], claimed: stolen}
    signed = canonical_json(body)
    proofs = {
        "certificate_request": signatures.sign_elliptic(early.tls_key, "enrolment", signed),
        "signing_key": signatures.sign(early.signing_key, "enrolment", signed),
        "node_key": signatures.sign_elliptic(early.node_key, "enrolment", signed),
    }
    request = canonical_json({"body": body, "signatures": {name: proof.hex() for name, proof in proofs.items()}})
    fingerprint = signatures.fingerprint(body["signing_key"].encode())
    with pytest.raises(VerificationError, match="enrolment signature"):
        enrol(federation / "coord", request, fingerprint, PLAN["sites"])
    assert Registry(federation / "coord").sites() == {}
    told = signatures.fingerprint(victim.signing_public)
    enrol(federation / "coord", enrolment_request(victim), told, PLAN["sites"])


def test_nobody_to_ask_is_no_comparison(federation, say, monkeypatch):
    request = federation / "alder" / "enrolment-request.json"
    words = ("coordinator", "enrol", "--home", federation / "coord", request, "--grant", federation / "g.json")
    code, line, said = say("sfumato", *words)
    assert (code, "--fingerprint" in line) == (ConfigError.exit_code, True)
    assert told(say, federation, "alder") not in line + said
    assert not (federation / "g.json").exists()


def test_people_are_asked_and_not_shown_what_to_answer(federation, say, monkeypatch):
    answers = {"alder": told(say, federation, "alder"), "coord": told(say, federation, "coord", "sfumato")}
    asked, typed = [], ["", answers["coord"], answers["alder"], answers["alder"], answers["coord"]]
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.prompt", lambda text: asked.append(text) or typed.pop(0))
    request = federation / "alder" / "enrolment-request.json"
    words = ("coordinator", "enrol", "--home", federation / "coord", request, "--grant", federation / "g.json")
    assert [say("sfumato", *words)[0] for _ in range(3)] == [6, 6, 0]
    words = ("join", "--home", federation / "alder", federation / "g.json", *PORTS)
    assert [say("sfumato-site", *words)[0] for _ in range(2)] == [6, 0]
    assert len(asked) == 5
    assert not [text for text in asked if answers["alder"] in text or answers["coord"] in text]


def test_an_older_request_without_the_proofs_is_refused(federation, say):
    shutil.copytree(federation / "alder", federation / "older")
    path = federation / "older" / "enrolment-request.json"
    value = json.loads(path.read_text())
    for proofs in ({"signing_key": value["signatures"]["signing_key"]}, {**value["signatures"], "node_key": ""}):
        path.write_bytes(canonical_json({**value, "signatures": proofs}))
        assert sign(say, federation, told(say, federation, "alder"), request="older")[0] == 6
