"""The rule of two persons against one person who has the commands, and no passphrase but the own one."""

from __future__ import annotations

import pytest
import yaml
from support.commands import speaker
from support.studies import POLICY

from sfumato_client.ledger.chain import next_row
from sfumato_client.ledger.people import change_steward, stewards
from sfumato_client.ledger.stewards import stewards_of, stewardship
from sfumato_client.ledger.storage import now
from sfumato_client.site.home import SiteHome
from sfumato_client.site.stewards import add_steward, remove_steward
from sfumato_common.crypto.identity import create_identity, load_identity
from sfumato_common.errors import ConfigError, LedgerError, PolicyRefusal

ADA, GRACE = b"a long one of ada", b"another of grace's"


@pytest.fixture
def home(tmp_path) -> SiteHome:
    root = tmp_path / "alder"
    create_identity(root / "identity", "alder")
    root.chmod(0o700)
    (root / "policy.yaml").write_text(yaml.safe_dump({"site": "alder", **POLICY}))
    made = SiteHome(root)
    add_steward(made, "ada", ADA)
    add_steward(made, "grace", GRACE, "ada", ADA)
    return made


def people(home):
    with home.open_ledger() as ledger:
        return set(stewards(ledger, load_identity(home.identity).signing_public))


def test_nobody_lets_the_stewards_go_and_begins_anew_as_the_first(home, monkeypatch, capsys, tmp_path):
    say, own = speaker(monkeypatch, capsys), tmp_path / "eve.txt"
    own.write_bytes(b"a long one of eve's")
    for name in ("ada", "grace"):
        code, line, _ = say("sfumato-site", "steward", "remove", name, "--home", home.root, "--by-passphrase-file", own)
        assert code != 0 and "does not open" in line
    code, line, _ = say("sfumato-site", "steward", "add", "eve", "--home", home.root, "--passphrase-file", own)
    assert code != 0 and "lets the next one in" in line
    assert people(home) == {"ada", "grace"}


def test_a_steward_goes_by_the_own_word_or_by_that_of_another_one(home):
    with pytest.raises(ConfigError, match="does not open"):
        remove_steward(home, "grace", "eve", ADA)
    remove_steward(home, "grace", "ada", ADA)
    assert people(home) == {"ada"}
    remove_steward(home, "ada", "ada", ADA)
    assert people(home) == set()


def test_a_removal_that_no_steward_signed_is_written_no_more(home):
    """A row of before has the site's signature alone, and is still read as what it was."""
    identity = load_identity(home.identity)
    with home.open_ledger() as ledger:
        known = stewards(ledger, identity.signing_public)
        key = bytes.fromhex(known["grace"].key)
        bare = stewardship("alder", "grace", key, "remove", now(), identity.sign_stewardship)
        with pytest.raises(PolicyRefusal, match="let go by a steward"):
            change_steward(ledger, bare, identity.signing_public)
        forged = stewardship(
            "alder", "grace", key, "remove", now(), identity.sign_stewardship, "ada", lambda _: bytes(64)
        )
        with pytest.raises(LedgerError, match="not signed as it must be"):
            change_steward(ledger, forged, identity.signing_public)
        rows = ledger._rows()
        assert set(stewards_of([*rows, next_row(rows, "steward", bare.fields())], identity.signing_public)) == {"ada"}
    assert people(home) == {"ada", "grace"}
