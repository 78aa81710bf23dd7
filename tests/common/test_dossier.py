"""The dossier says no more than its evidence: statuses, what is not shown first, and no claim nobody could carry."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape

import pytest
from support.published import certificate_of, plan_of

from sfumato_common.evidence.checks import CHECKS
from sfumato_common.evidence.dossier import Dossier, make_dossier, row_status
from sfumato_common.evidence.facts import Facts, GateFacts, LedgerFacts, SetFacts, Source, Stated
from sfumato_common.evidence.finding import Finding, not_shown, partly, shown
from sfumato_common.evidence.frameworks import FRAMEWORKS
from sfumato_common.evidence.page import render, write_dossier
from sfumato_common.strict import parse
from sfumato_common.study.certificate import Certificate, StatedCost, StatedCosts
from sfumato_common.study.policy import Budget, Policy

PLAN = plan_of(6, {"size": 16})
SET = SetFacts(Source.of("manifest.json", b"m", "the coordinator"), {("dp-sampling", "formal"): 12}, {}, None, True)
PAID = StatedCost(add_remove=1.7, add_remove_rdp=1.9, replace_one=3.9)
POLICY = parse(
    {
        "site": "east",
        "budget": {"epsilon": 8.0, "delta": 1e-4},
        "allowed_stages": ["spectral"],
        "minimum_patients": 30,
        "release": {"allowed_methods": ["dp-sampling"], "largest_set": 100},
    },
    Policy,
    "policy",
)


def stated(**changes):
    made = Certificate.model_validate({**certificate_of().model_dump(), **changes})
    return {site: Stated(made, Source.of(f"{site}.json", site.encode(), f"site {site}")) for site in PLAN.sites}


def facts(**more):
    given = {"stated": stated(), "published": SET, **more}
    return Facts("coordinator", PLAN, PLAN.digest, Source.of("plan", b"p", "the coordinator"), **given)


def book(*approvers):
    source = Source.of("ledger, row 9", b"row", "the chain")
    costs = StatedCosts(train=PAID, holdout=PAID, patient=PAID)
    return LedgerFacts(source, Budget(epsilon=8.0, delta=1e-4), costs, 4, 1, approvers)


def site_facts(*approvers, **more):
    given = {"published": None, "ledger": book(*approvers), "policy": (POLICY, SET.source), **more}
    return replace(facts(**given), side="site")


def check(name, given):
    return CHECKS[name](given)


def test_every_row_names_checks_and_every_check_stands_in_a_row():
    rows = [row for framework in FRAMEWORKS for row in framework.requirements]
    assert {name for row in rows for name in row.checks} == set(CHECKS)
    assert all(row.checks and row.asks and row.clause for row in rows)
    for framework in FRAMEWORKS:
        clauses = [row.clause for row in framework.requirements]
        assert len(set(clauses)) == len(clauses), framework.key
    assert [framework.key for framework in FRAMEWORKS] == [
        "dpia", "satre", "tehdas2", "edpb", "nist-800-226", "iso-27559",
    ]  # fmt: skip


def test_the_satre_clauses_that_were_asked_for_are_there():
    (satre,) = [framework for framework in FRAMEWORKS if framework.key == "satre"]
    assert {"3.3.07", "3.3.09"} <= {row.clause for row in satre.requirements}


def test_a_row_is_shown_only_where_all_of_its_checks_are():
    source = SET.source
    assert row_status([shown("a", source)]) == "shown"
    assert row_status([shown("a", source), not_shown("b")]) == "partly"
    assert row_status([not_shown("a"), not_shown("b")]) == "not shown"
    assert row_status([partly("a", "b", source), partly("a", "b", source)]) == "partly"


@pytest.mark.parametrize(
    ("status", "says", "missing", "evidence"),
    [
        ("shown", "a", "", ()),
        ("partly", "a", "b", ()),
        ("shown", "a", "b", (SET.source,)),
        ("not shown", "a", "b", ()),
        ("partly", "a", "", (SET.source,)),
    ],
)
def test_no_statement_stands_without_evidence(status, says, missing, evidence):
    with pytest.raises(AssertionError):
        Finding(status, says, missing, evidence)


def all_facts():
    gate = [GateFacts(Source.of("gate-1.json", b"g", "nobody"), True, ["k-same (gan): copies 0, at most 0.02"])]
    bare = {("dp-sampling", "formal"): 6, ("k-same", "syntactic"): 6}
    yield facts()
    yield facts(published=replace(SET, images=bare, utility=(0.71, 0.62, 0.80, SET.source), trusted=False))
    yield facts(stated={}, published=None)
    yield facts(stated=stated(noise="test"))
    yield site_facts("gate", "no-gate", gate=gate)
    yield site_facts()


def test_every_check_runs_on_every_kind_of_evidence_and_claims_no_state_that_files_cannot_have():
    banned = re.compile(r"\b(anonymous|anonymi[sz]ed|compliant|complies|guaranteed|safe|secure release|proves)\b", re.I)
    for given in all_facts():
        for name in CHECKS:
            found = check(name, given)
            assert not banned.search(found.says), f"{name}: {found.says}"
            assert found.says.endswith(".") or not found.says
            assert found.missing.endswith(".") or not found.missing


def test_test_noise_takes_every_statement_about_epsilon():
    void = facts(stated=stated(noise="test"))
    for name in ("terms", "recomputed", "within plan", "ceilings", "uncovered", "noise", "two sites"):
        assert check(name, void).status == "not shown", name
    assert "test noise" in check("terms", void).missing


def test_a_certificate_that_states_too_little_is_found():
    assert check("recomputed", facts()).status == "partly"
    low = {"add_remove": 0.5, "add_remove_rdp": 0.6, "replace_one": 1.0}
    none = dict.fromkeys(low, 0.0)
    wrong = stated(epsilon={"train": low, "holdout": none, "patient": low})
    found = check("recomputed", facts(stated=wrong))
    assert found.status == "not shown"
    assert "not those of the mechanisms" in found.missing


def test_a_certificate_beyond_the_plan_is_found():
    dear = PLAN.model_copy(update={"privacy": PLAN.privacy.model_copy(update={"epsilon": 1.0})})
    assert check("within plan", facts()).status == "shown"
    assert check("within plan", replace(facts(), plan=dear)).status == "not shown"


def test_images_without_an_epsilon_are_counted():
    bare = replace(SET, images={("dp-sampling", "formal"): 9, ("k-same", "syntactic"): 3})
    found = check("uncovered", facts(published=bare))
    assert found.status == "not shown"
    assert "3 of the 12 published images: 3 by k-same (syntactic)" in found.missing
    assert check("uncovered", facts()).status == "shown"


def test_an_approval_by_the_program_is_not_one_by_a_person():
    assert check("approval", site_facts("gate", "no-gate")).missing.startswith("No person approved")
    mixed = check("approval", site_facts("steward", "no-gate"))
    assert mixed.status == "partly"
    assert mixed.says.startswith("1 of the ledger's 2")
    assert mixed.missing.startswith("The others were made by the program.")
    assert check("approval", facts()).status == "not shown"


def test_a_weak_ceiling_is_called_one():
    weak = certificate_of().reach.model_copy(update={"auc": 0.97}).model_dump()
    assert "excludes little" in check("ceilings", facts(stated=stated(reach=weak))).missing


def test_the_site_shows_what_the_coordinator_cannot():
    ours, theirs = make_dossier(site_facts("gate")), make_dossier(facts())
    for name in ("all studies", "audit trail", "cohort size"):
        assert ours.checks[name].status == "partly"
        assert theirs.checks[name].status == "not shown"


def test_the_json_is_strict_and_its_numbers_are_those_of_the_rows(tmp_path):
    made = make_dossier(facts())
    write_dossier(made, tmp_path)
    again = Dossier.model_validate_json((tmp_path / "dossier.json").read_bytes())
    assert again == made
    assert sum(made.counts.values()) == sum(len(one.rows) for one in made.frameworks)
    for one in made.checks.values():
        assert all(0 <= place < len(made.evidence) for place in one.evidence)
    with pytest.raises(ValueError, match="extra"):
        Dossier.model_validate_json(json.dumps({**json.loads(made.encode()), "verdict": "anonymous"}))


def test_the_page_puts_what_is_not_shown_first_and_needs_nothing_from_outside():
    made = make_dossier(facts())
    page = render(made)
    assert page.index('id="not-shown"') < page.index('id="dpia"') < page.index('id="evidence"')
    assert not re.search(r"<script|https?://|src=|@import|url\(", page)
    for framework in made.frameworks:
        statuses = [row.status for row in framework.rows]
        assert statuses == sorted(statuses, key=["not shown", "partly", "shown"].index)
        assert all(row.clause in page for row in framework.rows)
    for found in made.checks.values():
        assert found.missing in unescape(page)
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(re.findall(r'id="([^"]+)"', page))


def test_text_of_a_site_or_a_plan_is_escaped():
    named = PLAN.model_copy(update={"study": "<b>x</b>"})
    sign = Source.of("<i>file</i>", b"", "<script>alert(1)</script>")
    page = render(make_dossier(replace(facts(), plan_source=sign)).model_copy(update={"study": named.study}))
    assert "<script>" not in page
    assert "<b>x" not in page
    assert "&lt;i&gt;file" in page
