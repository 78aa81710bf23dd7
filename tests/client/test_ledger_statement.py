"""The ledger as a person reads it: lines without gaps, epsilon alone and in all, who approved, and one page of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support import browser
from support.commands import speaker

from sfumato_client.ledger.approvals import approval
from sfumato_client.ledger.decisions import Decision, signed
from sfumato_client.ledger.page import ledger_page
from sfumato_client.ledger.people import change_steward, decide, decided
from sfumato_client.ledger.statement import purpose_words, statement
from sfumato_client.ledger.stewards import stewardship
from sfumato_client.site.home import SiteHome
from sfumato_common.accounting.accountant import epsilon
from sfumato_common.accounting.events import GaussianRelease, SampledGaussian, Unprotected
from sfumato_common.command_line import console
from sfumato_common.crypto.identity import create_identity, load_identity
from sfumato_common.crypto.signatures import sign
from sfumato_common.errors import LedgerError
from sfumato_common.study.costs import GATE_VERDICT

DELTA = 1e-5
POLICY = {
    "site": "alder",
    "budget": {"epsilon": 6.0, "delta": DELTA},
    "allowed_stages": ["spectral"],
    "minimum_patients": 10,
    "nonprivate_studies": ["bare"],
    "release": {"allowed_methods": ["dp-sampling"], "largest_set": 100},
}
STEP, ONCE = SampledGaussian(1.0, 0.01, 5), GaussianRelease(4.0)
HASH = {"thorax": "a" * 64, "retina": "b" * 64, "bare": "c" * 64}


@pytest.fixture
def say(monkeypatch, capsys):
    monkeypatch.setattr(console, "width", 220)
    return speaker(monkeypatch, capsys)


@pytest.fixture
def home(tmp_path) -> SiteHome:
    root = tmp_path / "alder"
    root.mkdir(mode=0o700)
    (root / "policy.yaml").write_text(yaml.safe_dump(POLICY))
    create_identity(root / "identity", "alder")
    return SiteHome(root)


def charge(ledger, study, purpose, round_number, event, cohort="train", settle=True):
    made = ledger.reserve(
        study=study, plan_hash=HASH[study], purpose=purpose, round=round_number, cohort=cohort, event=event
    )
    if settle:
        ledger.settle(made, "5e" * 32)


def two_studies(home):
    """Two rounds of one study, one of another between the second and the third, a verdict in both cohorts' books."""
    with home.open_ledger() as ledger:
        charge(ledger, "thorax", "gan", 1, STEP)
        charge(ledger, "thorax", "gan", 2, STEP)
        charge(ledger, "retina", "spectral", 1, ONCE)
        charge(ledger, "thorax", "gan", 3, STEP, settle=False)
        charge(ledger, "thorax", "gate-declared", 1, GATE_VERDICT)
        charge(ledger, "thorax", "gate-control-declared", 1, GATE_VERDICT, cohort="holdout")
        charge(ledger, "thorax", "utility", 1, ONCE, cohort="holdout")


def test_lines_have_no_gaps_and_every_epsilon_is_the_accountants(home):
    two_studies(home)
    with home.open_ledger() as ledger:
        lines, rows = statement(ledger, home.public_key()).lines, {entry.number for entry in ledger.entries()}
        spent = {cohort: ledger.spent_epsilon(cohort) for cohort in ("train", "holdout")}
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    assert sorted(number for line in lines for number in line.rows) == sorted(rows), "each charge once"
    found = [(line.study, line.purpose, line.charges, line.open) for line in lines]
    assert found == [
        ("thorax", "gan", 2, 0), ("retina", "spectral", 1, 0), ("thorax", "gan", 1, 1),
        ("thorax", "gate-declared", 1, 0),
        ("thorax", "gate-control-declared", 1, 0), ("thorax", "utility", 1, 0),
    ]  # fmt: skip
    assert lines[0].alone == epsilon([STEP] * 2, DELTA)
    assert lines[1].after == epsilon([STEP, STEP, ONCE], DELTA), "another study adds to the same patients"
    assert (lines[3].alone, lines[3].bits) == (0.0, 1)
    assert lines[5].after == epsilon([ONCE], DELTA), "holdout patients paid nothing of the training"
    assert {"train": lines[3].after, "holdout": lines[5].after} == spent


def test_an_approval_names_who_gave_it_and_a_forged_decision_is_refused(home):
    two_studies(home)
    identity, ada = load_identity(home.identity), Ed25519PrivateKey.generate()
    key, raw = identity.signing_public, ada.public_key().public_bytes_raw()
    about = ("alder", HASH["thorax"], "declared", ("d" * 64,))
    said = Decision(*about, "approve", "", "sharp [bold]", "ada", "2026-01-02T")
    taken = signed(said, lambda data: sign(ada, "decision", data), identity.sign_stewardship)
    with home.open_ledger() as ledger:
        change_steward(ledger, stewardship("alder", "ada", raw, "add", "2026-01-01", identity.sign_stewardship), key)
        decide(ledger, taken, key, persons=1)
        row = decided(ledger, HASH["thorax"], key)[0].row_hash
        give = identity.sign_approval
        ledger.approve(approval(HASH["thorax"], "declared", "steward", b"package", ("d" * 64,), give, decided=(row,)))
        ledger.approve(approval(HASH["retina"], "formal", "gate", b"other", ("e" * 64,), give))
        account = statement(ledger, key)
        with pytest.raises(LedgerError, match="not signed as it must be"):
            statement(ledger, create_identity(home.root.parent / "birch", "birch").signing_public)
        page = ledger_page(ledger, key)
    by_steward, by_policy = account.releases
    assert by_steward.by == ("steward ada on 2026-01-02: sharp [bold]",)
    assert by_policy.by == ("this site's policy, after the gate",) and by_policy.study == "retina"
    assert all(one.on.startswith("20") and len(one.packages) == 1 for one in account.releases)
    assert "sharp [bold]" in page and "ada became a steward" in page


def test_a_reason_cannot_become_html(home):
    two_studies(home)
    with home.open_ledger() as ledger:
        page = ledger_page(ledger, None)
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")


def test_infinity_is_said_and_not_added_up(home, say, tmp_path):
    with home.open_ledger() as ledger:
        charge(ledger, "bare", "gan", 1, Unprotected("gan"))
    out = tmp_path / "ledger.html"
    assert say("sfumato-site", "ledger", "page", "--home", home.root, "--out", out)[0] == 0
    text = out.read_text()
    assert "NO PRIVACY" in text and "epsilon infinite" in text and (out.stat().st_mode & 0o077) == 0
    shown = json.loads(say("sfumato-site", "ledger", "show", "--home", home.root, "--json")[2])
    assert shown["lines"][0]["alone"] is None and shown["lines"][0]["after"] is None


def test_show_reads_like_an_account(home, say):
    two_studies(home)
    said = say("sfumato-site", "ledger", "show", "--home", home.root)[2]
    assert "training of 'gan', 2 times" in said and "the gate's verdict on the declared part" in said
    assert "no epsilon covers 1 bit of it" in said and "1 not settled" in said


@pytest.mark.parametrize(
    ("purpose", "words"),
    [
        ("gate-control-declared", "the gate's verdict on the declared part, which holdout patients are compared for"),
        ("release-k-same-gan", "images released by k-same-gan"),
        ("spectral", "training of 'spectral'"),
    ],
)
def test_a_purpose_is_words(purpose, words):
    assert purpose_words(purpose) == words


@pytest.mark.skipif(not browser.is_there(), reason="Chromium and chromedriver are not installed")
def test_the_page_can_be_read_on_a_phone_at_a_desk_and_in_the_dark(home, tmp_path):
    two_studies(home)
    path, pictures = tmp_path / "ledger.html", Path(tmp_path / "pictures")
    with home.open_ledger() as ledger:
        path.write_text(ledger_page(ledger, home.public_key()))
    pictures.mkdir()
    with browser.chromium(tmp_path) as page:
        for width, dark in ((390, True), (1280, False)):
            page.open(path, width, 800, dark)
            page.photograph(pictures / f"{width}.png")
            assert page.run(browser.OVERFLOWING) == [0, []]
            assert not {at: ratio for at, ratio in page.run(browser.CONTRASTS).items() if ratio < 4.5}
            shown = (
                "return [...document.querySelectorAll('td.figure')].filter(td => !td.getClientRects().length).length"
            )
            assert page.run(shown) == 0, "every epsilon is on the screen"
            assert {asked.split("#")[0] for asked in page.requests()} <= {path.resolve().as_uri()}
