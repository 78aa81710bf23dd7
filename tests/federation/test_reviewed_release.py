"""A release that waits for people: what is charged, what leaves meanwhile, and what attackers gain at the seams."""

import dataclasses
import json
import multiprocessing
import os
import re

import jsonschema
import pytest
import yaml
from support.damaged import flipped
from support.reviewed import PASSPHRASES, policy
from support.stopped import die_at_write

from sfumato_client.audit.consent import Consent, consent_of
from sfumato_client.dataset.encryption import decrypt_whole, encrypt_whole
from sfumato_client.ledger.chain import next_row
from sfumato_client.ledger.check import check_package
from sfumato_client.ledger.decisions import Decision, decisions, require_decided
from sfumato_client.ledger.export import read_export
from sfumato_client.ledger.people import decided, stewards
from sfumato_client.ledger.storage import insert, now, transaction
from sfumato_client.site import making
from sfumato_client.site.desk import find, queue, take_decision
from sfumato_client.site.dossier import site_facts
from sfumato_client.site.stewards import add_steward, remove_steward
from sfumato_common.crypto.identity import load_identity
from sfumato_common.errors import ConfigError, EgressRefused, LedgerError, PolicyRefusal, ReleaseRefused
from sfumato_common.evidence.dossier import make_dossier
from sfumato_common.evidence.page import render
from sfumato_common.evidence.schema import certificate_schema
from sfumato_common.protocol.messages import PROTOCOL, Reply
from sfumato_common.study.costs import REVIEW_WORDS
from sfumato_server.coordinator.study import run_study
from sfumato_server.intake.claims import check_claims
from sfumato_server.rounds.deadlines import Deadlines
from sfumato_server.rounds.waiting import ReleaseClock
from sfumato_server.status.admitted import admitted_sheets
from sfumato_server.status.live import page_text
from sfumato_server.status.overview import overview
from sfumato_server.status.view import release_lines

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def site(waiting, tmp_path):
    """A copy of it, with two stewards."""
    found = waiting.copy(tmp_path / "alder")
    found.hire("ada", "grace")
    return found


def say(site, part, who, verdict="approve", ground="", **more):
    name = f"tiny/{part}"
    return take_decision(site.home.root, name, verdict, who, PASSPHRASES[who], "I looked", ground, **more)


def rows(site, purpose):
    with site.home.open_ledger() as ledger:
        settled = ledger.settled_results()
        return [(e.cohort, e.event, e.number in settled) for e in ledger.entries() if e.purpose.startswith(purpose)]


def key_of(site):
    return load_identity(site.home.identity).signing_public


def test_what_people_will_say_is_charged_to_both_cohorts_before_anything_is_shown(waiting):
    assert rows(waiting, "review") == [
        (cohort, REVIEW_WORDS[part], False) for part in ("formal", "declared") for cohort in ("train", "holdout")
    ]
    states = {entry.name: entry.state for entry in queue(waiting.home.root)}
    assert states == {"tiny/formal": "waits", "tiny/declared": "later"}
    assert waiting.uploads == []


def test_nothing_is_shown_of_what_is_not_charged(site, monkeypatch):
    from sfumato_client.site import desk, reviewing

    monkeypatch.setattr(reviewing, "is_charged", lambda ledger, terms: False)
    with site.home.open_ledger() as ledger, pytest.raises(LedgerError, match="not charged yet"):
        desk.candidate_sets(find(site.home.root, "tiny/formal"), ledger)


def test_candidates_that_wait_are_encrypted_on_the_disk(waiting):
    folder = waiting.home.releases / waiting.plan.digest[:16]
    kept = {path.name for path in folder.iterdir()}
    assert {"dp-sampling-spectral.encrypted", "k-same-gan.encrypted"} <= kept
    assert {name for name in kept if name.endswith(".safetensors")} == {"request.safetensors"}
    raw = (folder / "k-same-gan.encrypted").read_bytes()
    plain = decrypt_whole(waiting.home.store_key(), "candidates", raw)
    assert b"claims" in plain and b"claims" not in raw
    assert encrypt_whole(waiting.home.store_key(), "candidates", plain) != raw


def test_a_coordinator_is_told_that_people_are_asked_only_where_policy_tells_it(site):
    assert [site.ask(kind).status for kind in ("make", "send")] == ["pending", "pending"]
    site.rule(policy(queue="told"))
    for kind in ("make", "send"):
        reply = site.ask(kind)
        assert (reply.status, reply.code, reply.reference, dict(reply.arrays)) == ("review", "", "", {})
    assert site.uploads == []


def test_a_release_that_stewards_approve_leaves_and_its_papers_say_so(site, monkeypatch):
    monkeypatch.setattr(making, "anonymise", None)
    say(site, "formal", "ada")
    # the formal part hangs on nothing that people say, or do not say, of the other
    assert [site.ask("send").status for _ in range(2)] == ["pending", "pending"]
    (ahead,) = site.uploads
    with pytest.raises(PolicyRefusal, match="does not wait"):
        say(site, "formal", "grace")
    say(site, "declared", "grace")
    assert site.ask("make").status == "ok"
    assert site.ask("send").status == "ok"
    assert site.uploads[1] == ahead and len(site.uploads) == 3
    assert all(settled for _, _, settled in rows(site, "review"))
    with site.home.open_ledger() as ledger:
        export, leaves = ledger.export(), ledger.approvals(site.plan.digest)
        said = {each.decision.part: each for each in decided(ledger, site.plan.digest, key_of(site))}
    for part, (leave,) in leaves.items():
        assert (leave.by, leave.decided) == ("steward", (said[part].row_hash,))
        assert leave.sets == said[part].decision.sets
    ledger_rows = read_export(export).rows
    for wrong in ({"decided": ("a" * 64,)}, {"sets": ("b" * 64,)}, {"part": "declared"}):
        other = dataclasses.replace(leaves["formal"][0], **wrong)
        with pytest.raises(LedgerError, match="no steward's yes"):
            require_decided(ledger_rows, [other], key_of(site))
    with site.home.open_ledger() as ledger:
        stated = ledger.certificate(site.plan, noise="test")
    assert {event.what for event in REVIEW_WORDS.values()} <= {item.what for item in stated.declared}
    check_claims(stated, site.plan)  # the coordinator takes it
    assert {entry.state for entry in queue(site.home.root)} == {"approved"}


@pytest.mark.slow
def test_another_accountant_agrees_with_what_people_let_pass(site):
    """The formal part is sealed before the declared one is decided on, and names what that costs all the same."""
    say(site, "formal", "ada")
    assert site.ask("send").status == "pending"
    say(site, "declared", "ada", "refuse", "quality")
    assert site.ask("send").status == "ok"
    with site.home.open_ledger() as ledger:
        export = ledger.export()
    report = check_package(export, site.uploads[0], key_of(site))
    report.require()
    assert report.approved


def test_only_declared_parts_wait_where_policy_lets_formal_ones_pass_by_their_proof(site):
    site.rule(policy("formal-auto"))
    assert site.ask("make").status == "pending"
    with site.home.open_ledger() as ledger:
        (leave,) = ledger.approvals(site.plan.digest)["formal"]
    assert (leave.by, leave.decided) == ("no-gate", ())
    say(site, "declared", "ada", "refuse", "resemblance")
    assert site.ask("make").status == "ok"
    assert site.ask("send").status == "ok"
    assert len(site.uploads) == 1
    assert [entry.words for entry in queue(site.home.root)] == ["approved by policy", "refused by a steward"]


def test_a_refusal_leaves_as_the_gates_does(site):
    say(site, "formal", "ada", "refuse", "quality")
    say(site, "declared", "ada", "refuse", "law")
    for kind in ("make", "send"):
        reply = site.ask(kind)
        assert (reply.status, reply.code, dict(reply.arrays)) == ("refused", "release-refused", {})
    assert site.uploads == []
    assert all(settled for _, _, settled in rows(site, "review"))
    with pytest.raises(PolicyRefusal, match="does not wait"):
        say(site, "formal", "grace")


def test_two_persons_are_two_people_with_two_keys(site):
    site.rule(policy(two=True))
    assert say(site, "formal", "ada").words == "waits for a second steward: ada approved"
    with pytest.raises(PolicyRefusal, match="another person's"):
        say(site, "formal", "ada")
    assert site.ask("make").status == "pending"
    say(site, "formal", "grace")
    assert say(site, "declared", "grace").state == "waits"
    assert say(site, "declared", "ada", "refuse", "quality").state == "decided"  # one no is enough
    assert site.ask("make").status == "ok"
    with site.home.open_ledger() as ledger:
        (leave,) = ledger.approvals(site.plan.digest)["formal"]
    assert len(leave.decided) == 2


def test_a_steward_is_let_in_by_a_steward_and_by_nobody_else(site):
    with pytest.raises(PolicyRefusal, match="lets the next one in"):
        add_steward(site.home, "eve", b"a long one of eve's")
    with pytest.raises(ConfigError, match="does not open"):
        add_steward(site.home, "eve", b"a long one of eve's", "ada", PASSPHRASES["grace"])
    with pytest.raises(ConfigError, match="at least 12"):
        add_steward(site.home, "eve", b"short", "ada", PASSPHRASES["ada"])
    with pytest.raises(ConfigError, match="small letters"):
        add_steward(site.home, "../eve", b"a long one of eve's")
    remove_steward(site.home, "grace", "ada", PASSPHRASES["ada"])
    with pytest.raises(ConfigError, match="does not open"):
        say(site, "formal", "grace")
    with site.home.open_ledger() as ledger:
        assert set(stewards(ledger, key_of(site))) == {"ada"}
    assert PASSPHRASES["ada"] not in (site.home.stewards / "ada.key").read_bytes()
    assert (site.home.stewards / "ada.key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("shown", [["0" * 64], []])
def test_a_decision_about_other_candidates_than_were_shown_is_not_taken(site, shown):
    with pytest.raises(PolicyRefusal, match="other candidates"):
        say(site, "formal", "ada", shown=shown)


def test_candidates_that_are_swapped_after_the_approval_do_not_leave(site):
    """Of DP sampling no charge holds the hash: only what the stewards signed does."""
    say(site, "formal", "ada")
    path = site.home.releases / site.plan.digest[:16] / "dp-sampling-spectral.encrypted"
    plain = decrypt_whole(site.home.store_key(), "candidates", path.read_bytes())
    path.write_bytes(encrypt_whole(site.home.store_key(), "candidates", flipped(plain)))
    reply = site.ask("make")
    assert (reply.status, reply.code) == ("refused", "egress-refused")
    said = (site.home.steward_folder / "errors" / f"{reply.reference}.txt").read_text()
    assert "not those that the stewards decided on" in said
    with site.home.open_ledger() as ledger:
        assert ledger.approvals(site.plan.digest) == {}


def test_an_encrypted_set_of_another_place_or_key_is_none(site):
    path = site.home.releases / site.plan.digest[:16] / "k-same-gan.encrypted"
    path.write_bytes(flipped((path.parent / "dp-sampling-spectral.encrypted").read_bytes()))
    reply = site.ask("make")
    assert site.uploads == []
    say(site, "formal", "ada")
    with pytest.raises(Exception, match="damaged"):
        say(site, "declared", "ada")
    assert reply.status == "pending"


def forged(site, **changes):
    """A decision as whoever has all of the home's files can write it: without the steward's passphrase."""
    entry, identity = find(site.home.root, "tiny/formal"), load_identity(site.home.identity)
    values = {"plan_hash": site.plan.digest, "part": "formal", "sets": entry.sets, **changes}
    told = Decision(
        "alder", values["plan_hash"], values["part"], values["sets"], "approve", "", "fine", "ada", now(),
        by_signature=values.get("by_signature", bytes(64)),
    )  # fmt: skip
    return dataclasses.replace(told, signature=identity.sign_stewardship(told.taken))


def append(site, decision):
    with site.home.open_ledger() as ledger:
        with transaction(ledger._connection):
            insert(ledger._connection, next_row(ledger._rows(), "decide", decision.fields()))
        ledger._advance_head()


def test_a_decision_that_its_steward_did_not_sign_stops_the_release(site):
    append(site, forged(site))
    reply = site.ask("make")
    assert (reply.status, reply.code) == ("refused", "ledger-refused")
    with site.home.open_ledger() as ledger, pytest.raises(LedgerError, match="not signed by a steward"):
        decided(ledger, site.plan.digest, key_of(site))


def test_a_decision_for_another_plan_part_or_set_serves_nothing(site):
    say(site, "formal", "ada")
    with site.home.open_ledger() as ledger:
        (said,) = decided(ledger, site.plan.digest, key_of(site))
        ledger_rows = ledger._rows()
    signed = said.decision.by_signature
    for changes in ({"plan_hash": "a" * 64}, {"part": "declared"}, {"sets": ("b" * 64,)}):
        other = forged(site, by_signature=signed, **changes)
        row = next_row(ledger_rows, "decide", other.fields())
        with pytest.raises(LedgerError, match="not signed by a steward"):
            decisions([*ledger_rows, row], other.plan_hash, key_of(site))
    sets, digest = said.decision.sets, site.plan.digest
    assert consent_of([said], "a" * 64, "formal", sets, 1) is None
    assert consent_of([said], digest, "declared", sets, 1) is None
    assert consent_of([said, said], digest, "formal", sets, 2) is None  # one key is one person
    with pytest.raises(EgressRefused, match="not those"):
        consent_of([said], digest, "formal", ("c" * 64,), 1)


def test_nothing_is_sealed_without_the_consent_that_policy_asks_for(site, monkeypatch):
    from sfumato_client.release import seal as sealing

    say(site, "formal", "ada")
    real, tried = making.seal, []

    def without(approved, plan, rules, certificate, sign, consent):
        bare = Consent(consent.plan_hash, consent.part, consent.sets, ("ada", "grace"), consent.rows, b"x" * 32)
        for wrong in (None, bare, dataclasses.replace(consent, part="declared"), "yes"):
            with pytest.raises(ReleaseRefused):
                sealing(approved, plan, rules, certificate, sign, wrong)
            tried.append(wrong)
        return real(approved, plan, rules, certificate, sign, consent)

    monkeypatch.setattr(making, "seal", without)
    assert site.ask("make").status == "pending"  # the declared part waits
    assert len(tried) == 4


def _go_on_and_die(site, steps):
    die_at_write(steps)
    os._exit(0 if site.ask("make").status == "ok" else 1)


def test_a_release_that_is_killed_while_it_is_sealed_goes_on_by_the_same_decisions(site):
    say(site, "formal", "ada")
    say(site, "declared", "ada")
    codes = []
    for steps in range(0, 40, 3):
        child = FORK.Process(target=_go_on_and_die, args=(site, steps))
        child.start()
        child.join(120)
        codes.append(child.exitcode)
        if child.exitcode == 0:
            break
        assert child.exitcode == 9, "killed, and never refused because of an earlier kill"
    assert codes[-1] == 0 and len(codes) > 2
    assert site.ask("send").status == "ok"
    assert len(site.uploads) == 2
    found = rows(site, "review")
    assert len(found) == 4 and all(settled for _, _, settled in found)
    with site.home.open_ledger() as ledger:
        assert len(decided(ledger, site.plan.digest, key_of(site))) == 2


def test_a_restored_disk_puts_back_what_people_said(site):
    from sfumato_client.site.recovery import owed_charges

    owed = owed_charges(site.plan, site.home.policy(), {("formal", 1), ("declared", 1)})
    books = [(f"{book}-{part}", part) for part in ("declared", "formal") for book in ("review", "review-control")]
    found = [(each.purpose, each.event) for each in owed if each.purpose.startswith("review")]
    assert found == [(purpose, REVIEW_WORDS[part]) for purpose, part in books]


def test_reasons_are_one_line_and_refusals_have_a_ground(site):
    for reason in ("", " ", "x" * 501, "two\nlines"):
        with pytest.raises(ConfigError, match="one line"):
            take_decision(site.home.root, "tiny/formal", "approve", "ada", PASSPHRASES["ada"], reason)
    with pytest.raises(ConfigError, match="ground"):
        say(site, "formal", "ada", "refuse", "resemblance")
    with pytest.raises(ConfigError, match="did you mean 'tiny/formal'"):
        find(site.home.root, "tiny/forma")
    assert json.loads((site.home.releases / site.plan.digest[:16] / "waiting-formal.json").read_text())["sets"]


@pytest.mark.slow
def test_the_coordinator_waits_for_people_and_shows_what_it_may_know(waiting):
    """The whole way at two sites: one tells that its stewards have the release, the other's policy withholds it."""
    federation = waiting.asked.federation
    homes, exchange, seen = {name: federation.home(name) for name in ("alder", "birch")}, federation.exchange, []
    for name, queue_rule in (("alder", "told"), ("birch", "withheld")):
        (homes[name].root / "policy.yaml").write_text(yaml.safe_dump({"site": name, **policy(queue=queue_rule)}))
        add_steward(homes[name], "ada", PASSPHRASES["ada"])

    def meanwhile(requests, *rest):
        if {request.kind for request in requests.values()} == {"send"}:
            view = overview(federation.coordinator.root, federation.plan)
            seen.append((view["releases"], {name: site["state"] for name, site in view["sites"].items()}))
            for home in homes.values() if len(seen) in (2, 3) else ():
                entry = next(entry for entry in queue(home.root) if entry.state == "waits")
                verdict = "refuse" if (home, entry.part) == (homes["birch"], "declared") else "approve"
                ground = "quality" if verdict == "refuse" else ""
                take_decision(home.root, entry.name, verdict, "ada", PASSPHRASES["ada"], "I looked", ground)
        return exchange(requests, *rest)

    federation.exchange = meanwhile
    assert run_study(federation.coordinator, federation, seed=1, classifier_steps=5) == "completed"
    said = [(name, reply.status) for name, request, reply in federation.sent if request.kind == "send"]
    assert said[:2] == [("alder", "review"), ("birch", "pending")]
    assert set(said[-2:]) == {("alder", "ok"), ("birch", "ok")}
    releases, states = seen[1]
    assert releases["alder"] == dict.fromkeys(("formal", "declared"), "with its stewards")
    assert releases["birch"] == dict.fromkeys(("formal", "declared"), "being made")  # no more than it tells
    assert states["alder"] == "review"
    releases, _ = seen[2]
    assert releases["alder"] == {"formal": "admitted", "declared": "with its stewards"}
    assert releases["birch"]["formal"] == "admitted"
    view = overview(federation.coordinator.root, federation.plan)
    assert view["releases"]["alder"] == {"formal": "admitted", "declared": "admitted"}
    assert view["releases"]["birch"] == {"formal": "admitted", "declared": "not released"}
    sheets = admitted_sheets(federation.coordinator.root, federation.plan)
    assert [(sheet["site"], sheet["part"]) for sheet in sheets] == [
        ("alder", "formal"), ("alder", "declared"), ("birch", "formal"),
    ]  # fmt: skip
    page = page_text(federation.coordinator.root, federation.plan)
    assert all((federation.coordinator.root / "sheets" / sheet["file"]).is_file() for sheet in sheets)
    assert "admitted-alder-declared.png" in page and "not released" in page
    assert any("release of birch: formal admitted, declared not released" in line for line in release_lines(view))


def test_people_are_waited_for_longer_than_machines_and_asked_less_often():
    now = [0.0]
    clock = ReleaseClock(Deadlines(60.0, 3600.0, 7200.0), lambda: now[0])
    pending, review = Reply(PROTOCOL, "pending", "", "", {}), Reply(PROTOCOL, "review", "", "", {})
    clock.note({"alder": review, "birch": pending})
    pauses = []
    for _ in range(40):
        now[0] += 4.0  # the question, and its answers
        clock.note({"alder": review, "birch": pending})
        pauses.append(clock.pause())
        now[0] += pauses[-1]
    assert pauses == sorted(pauses) and pauses[0] == 1.0 and pauses[-1] == 15.0
    now[0] += 60.0  # who works within a question is not kept waiting for the next one
    assert clock.pause() == 1.0
    assert clock.over({"alder", "birch", "cedar"}) == set()
    now[0] = 3601.0
    assert clock.over({"alder", "birch", "cedar"}) == {"birch", "cedar"}
    clock.note({"birch": review})
    assert clock.pause() == 1.0
    now[0] = 7201.0
    assert clock.over({"alder", "birch"}) == {"alder", "birch"}


def test_a_sites_dossier_lists_every_decision_by_key_with_its_ground_and_its_charge(site):
    """No name and none of a person's own words: those stay in the ledger."""
    say(site, "formal", "ada")
    site.ask("make")
    say(site, "declared", "grace", "refuse", "quality")
    made = make_dossier(site_facts(site.home, "tiny"))
    told = made.decisions.decisions
    assert [(one.release, one.verdict, one.ground) for one in told] == [
        ("tiny/formal", "approve", ""), ("tiny/declared", "refuse", "quality"),
    ]  # fmt: skip
    with site.home.open_ledger() as ledger:
        people, known = stewards(ledger, key_of(site)), {entry.number: entry for entry in ledger.entries()}
    assert [one.steward for one in told] == [people[name].fingerprint for name in ("ada", "grace")]
    for one in told:
        assert [charge.cohort for charge in one.charged] == ["train", "holdout"]
        assert {known[charge.entry].event for charge in one.charged} == {REVIEW_WORDS[one.part]}
    for text in (made.encode().decode(), page := render(made)):
        assert "I looked" not in text
        assert not re.search(r"\b(ada|grace)\b", text)
    assert told[1].steward in page
    assert "on the ground" in page
    validator = jsonschema.Draft202012Validator(certificate_schema())
    validator.validate(made.decisions.model_dump(mode="json"))


def test_no_dossier_is_made_of_a_decision_that_nobody_signed(site):
    append(site, forged(site))
    with pytest.raises(LedgerError, match="not signed by a steward"):
        site_facts(site.home, "tiny")
