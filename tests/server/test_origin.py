"""Attacks on the origin of a published set: a stranger's set, an invented hospital, an edited report."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.commands import speaker
from support.plans import dp_sgd

from sfumato_client.ledger.certificate import certificate
from sfumato_common.crypto.identity import create_identity
from sfumato_common.crypto.signatures import fingerprint, is_fingerprint, public_pem, sign
from sfumato_common.errors import ConfigError, UnverifiedOrigin, VerificationError
from sfumato_common.files import canonical_json
from sfumato_server.enrol import create_authority
from sfumato_server.intake.admission import package_path
from sfumato_server.pool import pool_packages
from sfumato_server.publish import open_folder, publish, verify_dataset
from sfumato_server.publish.cards import CARDS
from sfumato_server.publish.manifest import parse_published, stated_files

RUN = {"exchanges": [], "seconds": 1.0}


def publish_set(consortium: Any, out: Path, **signers: Any) -> Path:
    """What the consortium would publish; `signers` stand in for sites' own keys."""
    for site in consortium.plan.sites:
        changes = {"sign": signers[site].sign_package} if site in signers else {}
        path = package_path(consortium.home, site, "formal")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(consortium.package(site, **changes))
    pool = pool_packages(consortium.home, consortium.plan, consortium.registry)
    return publish(pool, consortium.plan, out, consortium.authority, RUN, None).folder


@pytest.fixture(scope="module")
def honest(founded: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    consortium = founded.copied(tmp_path_factory.mktemp("home") / "coordinator")
    return consortium, publish_set(consortium, tmp_path_factory.mktemp("out"))


@pytest.fixture
def invented(consortium: Any, tmp_path: Path) -> tuple[Any, Path]:
    """A coordinator that puts a key of its own under a hospital's name."""
    own = create_identity(tmp_path / "own", "east")
    file = consortium.home / "sites.json"
    known = json.loads(file.read_text())
    known["sites"]["east"]["signing_key"] = own.signing_public.decode()
    file.write_text(json.dumps(known))
    return consortium, publish_set(consortium, tmp_path / "out", east=own)


@pytest.fixture
def verify(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    return partial(speaker(monkeypatch, capsys), "sfumato", "dataset", "verify")


def trusted_keys(consortium: Any) -> dict[str, bytes]:
    return {site: identity.signing_public for site, identity in consortium.identities.items()}


def test_a_strangers_set_without_a_key_is_of_unverified_origin(honest: Any, verify: Any) -> None:
    _, folder = honest  # whoever knows the plan can make such a set, down to the hospitals' names
    for words in ((), ("--json",)):
        code, error, out = verify(folder, *words)
        assert code == UnverifiedOrigin.exit_code == 3
        assert "UNVERIFIED ORIGIN" in error
        assert ("UNVERIFIED ORIGIN" in out) is not bool(words)
        assert not words or json.loads(out)["trusted"] is False


def test_with_the_coordinators_key_the_origin_is_verified(honest: Any, verify: Any) -> None:
    consortium, folder = honest
    key = consortium.authority.folder / "coordinator.pem"
    code, error, out = verify(folder, "--key", key)
    assert (code, error) == (0, "")
    assert "UNVERIFIED" not in out
    assert fingerprint(consortium.authority.public_key) in out
    for identity in consortium.identities.values():
        assert f"{fingerprint(identity.signing_public)} (NOT compared)" in out


def test_an_invented_hospital_is_found_by_its_true_key(invented: Any, verify: Any, tmp_path: Path) -> None:
    consortium, folder = invented
    key = consortium.authority.public_key
    report = verify_dataset(folder, key)
    # nothing in the set gives the lie away: the summary says that no hospital's key was compared
    assert report.compared_sites == ()
    with pytest.raises(VerificationError, match="site 'east' signed with is not the trusted key"):
        verify_dataset(folder, key, trusted_keys(consortium))
    rest = {site: pem for site, pem in trusted_keys(consortium).items() if site != "east"}
    assert verify_dataset(folder, key, rest).compared_sites == ("north", "south")
    (tmp_path / "east.pem").write_bytes(trusted_keys(consortium)["east"])
    words = ("--key", consortium.authority.folder / "coordinator.pem", "--site-key", f"east={tmp_path / 'east.pem'}")
    assert verify(folder, *words)[0] == VerificationError.exit_code


def test_hospitals_keys_can_be_compared(honest: Any, verify: Any, tmp_path: Path) -> None:
    consortium, folder = honest
    report = verify_dataset(folder, consortium.authority.public_key, trusted_keys(consortium))
    assert report.compared_sites == ("east", "north", "south")
    (tmp_path / "north.pem").write_bytes(trusted_keys(consortium)["north"])
    words = ("--key", consortium.authority.folder / "coordinator.pem", "--site-key", f"north={tmp_path / 'north.pem'}")
    code, _, out = verify(folder, *words)
    assert code == 0
    assert f"key of site 'north': {fingerprint(trusted_keys(consortium)['north'])} (compared)" in out
    assert "(NOT compared)" in out
    for wrong in ("north", "=", f"west={tmp_path / 'north.pem'}", "north=nowhere.pem"):
        assert verify(folder, *words[:2], "--site-key", wrong)[0] == ConfigError.exit_code


def test_sites_keys_alone_do_not_verify_the_origin(honest: Any, verify: Any, tmp_path: Path) -> None:
    consortium, folder = honest
    words = []
    for site, pem in trusted_keys(consortium).items():
        (tmp_path / f"{site}.pem").write_bytes(pem)
        words += ["--site-key", f"{site}={tmp_path / site}.pem"]
    assert verify(folder, *words)[0] == UnverifiedOrigin.exit_code


@pytest.fixture
def edited(honest: Any, tmp_path: Path) -> tuple[Any, Path]:
    consortium, folder = honest
    return consortium, Path(shutil.copytree(folder, tmp_path / "published"))


def test_an_edited_report_does_not_verify(edited: Any) -> None:
    consortium, folder = edited
    report = folder / "report.html"
    text = report.read_text()
    assert "1.699" in text
    report.write_text(text.replace("1.699", "0.010"))
    with pytest.raises(VerificationError, match=r"report\.html was altered"):
        verify_dataset(folder, consortium.authority.public_key)
    report.unlink()
    with pytest.raises(VerificationError, match=r"report\.html is missing"):
        verify_dataset(folder, consortium.authority.public_key)


def test_every_file_of_the_folder_is_under_the_signature(edited: Any) -> None:
    consortium, folder = edited
    manifest = parse_published((folder / "manifest.json").read_bytes())
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    published = open_folder(folder)
    assert found == {*published.statements(), *(entry.file for entry in published.entries())}
    assert stated_files(manifest.sites) | set(CARDS) == set(manifest.files)
    for name in ("README.txt", "index.html", "report.html.orig", "images/report.html", "provenance/north/report.html"):
        (folder / name).write_text("read me instead")
        with pytest.raises(VerificationError, match="does not belong"):
            verify_dataset(folder, consortium.authority.public_key)
        (folder / name).unlink()
    verify_dataset(folder, consortium.authority.public_key)


def test_a_second_report_cannot_be_signed_in(edited: Any) -> None:
    """Also a coordinator that signs another page for people to read is refused: the set has one."""
    consortium, folder = edited
    page = b"<p>epsilon 0.010</p>"
    (folder / "index.html").write_bytes(page)
    value = json.loads((folder / "manifest.json").read_bytes())
    value["files"]["index.html"] = value["files"]["report.html"]
    signed = canonical_json(value)
    (folder / "manifest.json").write_bytes(signed)
    (folder / "manifest.sig").write_bytes(sign(consortium.authority.signing_key, "published", signed))
    with pytest.raises(VerificationError, match="does not list the files"):
        verify_dataset(folder, consortium.authority.public_key)


def test_one_site_has_one_key_in_both_parts_of_its_release(consortium: Any, make_plan: Any, tmp_path: Path) -> None:
    """A coordinator that has a hospital's formal part invents the declared one, under a key of its own."""
    stages = [*make_plan().model_dump(mode="json")["stages"], dp_sgd(kind="gan")]
    release = [{"model": "spectral", "images": 6}, {"method": "k-same", "k": 2, "images": 6}]
    plan = make_plan(stages=stages, release=release)
    both = replace(consortium, plan=plan)
    grouped = [
        replace(
            image, facts=image.facts.model_copy(update={"method": "k-same", "model": "gan", "guarantee": "syntactic"})
        )
        for image in both.images(5)
    ]
    for part, changes in (("formal", {}), ("declared", {"images": grouped})):
        path = package_path(both.home, "east", part)  # type: ignore[arg-type]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(both.package("east", certificate=certificate(plan, [], [], "secure"), **changes))
    pool = pool_packages(both.home, plan, both.registry)
    folder = publish(pool, plan, tmp_path / "true", both.authority, RUN, None).folder
    assert verify_dataset(folder, both.authority.public_key).sites == ("east",)
    own = create_identity(tmp_path / "own", "east")
    signature = folder / "provenance/east/declared/0001.sig"
    signature.write_bytes(own.sign_package((folder / "provenance/east/declared/0001.json").read_bytes()))
    with pytest.raises(VerificationError, match=r"declared/0001\.sig: the signature of site 'east'"):
        verify_dataset(folder, both.authority.public_key)


def test_fingerprints_are_short_and_any_letter_counts(tmp_path: Path) -> None:
    key = create_authority(tmp_path).public_key
    said = fingerprint(key)
    assert len(said) == 24
    assert set(said) <= set("abcdefghijklmnopqrstuvwxyz234567-")
    for same in (said, said.upper(), said.replace("-", " "), f" {said.replace('-', '')}\n"):
        assert is_fingerprint(same, key)
    for other in ("", said[:-1], said + "a", said.replace(said[0], "b" if said[0] != "b" else "c", 1), "-" * 24):
        assert not is_fingerprint(other, key)
    other_key = create_identity(tmp_path / "other", "other").signing_public
    assert not is_fingerprint(said, other_key)
    assert fingerprint(public_pem(create_identity(tmp_path / "third", "third").signing_key.public_key())) != said


def test_what_is_missing_or_altered_is_counted_and_said_with_what_to_do(
    edited: Any, verify: Any, tmp_path: Path
) -> None:
    consortium, folder = edited
    key = tmp_path / "key.pem"
    key.write_bytes(consortium.authority.public_key)

    def said() -> str:
        code, words, _ = verify(folder, "--key", key)
        assert code != 0
        return words

    again = "fetch it again, and if that says the same, do not use it and ask the coordinator"
    names = ("train.csv", "test.csv", "coordinator.pem", "manifest.sig")
    whole = {name: (folder / name).read_bytes() for name in names}
    for name in names:
        (folder / name).unlink()
        assert f"{name} is missing" in (told := said()) and again in told
        (folder / name).write_bytes(whole[name][:-9])
        assert name in (told := said()) and again in told
        (folder / name).write_bytes(whole[name])
    for name in names[:2]:
        (folder / name).unlink()
    assert "test.csv is missing, and 1 more beside it" in said()
    for name in names[:2]:
        (folder / name).write_bytes(whole[name])
    (folder / "more.txt").write_text("x")
    assert again not in (told := said()) and "all of whose own files hold" in told
    key.write_text("no key")
    assert "'key.pem' is no public key in PEM form" in said()
