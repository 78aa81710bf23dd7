"""A whole study in the features of a given encoder: embedding release and k-SALSA's content, published and checked."""

from __future__ import annotations

import csv

import pytest
from support.encoders import default_terms, needs_default
from support.federations import make_federation
from support.studies import PLAN, POLICY

from sfumato_common.encoders.files import find_encoder
from sfumato_common.encoders.settings import EncoderTerms
from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.strict import parse
from sfumato_common.study.costs import study_events
from sfumato_common.study.plan import Plan
from sfumato_server.coordinator.study import run_study
from sfumato_server.enrol import Registry, load_authority
from sfumato_server.intake.claims import check_claims
from sfumato_server.pool import pool_packages
from sfumato_server.publish import publish, verify_dataset
from sfumato_server.rounds.encoders import encoder_in, encoder_key, keep_encoder, load_encoders

pytestmark = [pytest.mark.filterwarnings("ignore:TestNoise"), needs_default]
QUICK = {"k": 2, "steps": 2, "embedding_steps": 2, "encoder_steps": 2, "refinement_steps": 1}


def values() -> dict:
    embedding = {"kind": "embedding", "noise_multiplier": 1.0, "width": 8, "generator_steps": 2, "encoder": "eyes"}
    salsa = {"method": "k-salsa", "model": "embedding", "images": 3, "content_encoder": "eyes", **QUICK}
    return {
        **PLAN,
        "encoders": {"eyes": default_terms(32)},
        "stages": [PLAN["stages"][0], embedding],
        "release": [{"model": "embedding", "images": 6}, salsa],
        "utility": None,
    }


def policy() -> dict:
    gate = {**POLICY["release"]["gate"], "identity_share_limit": 1.0}
    release = {**POLICY["release"], "allowed_methods": ["dp-sampling", "k-salsa"], "smallest_group": 2, "gate": gate}
    return {**POLICY, "allowed_stages": ["spectral", "embedding"], "release": release}


def test_a_study_runs_in_the_features_of_a_given_encoder(tmp_path):
    federation = make_federation(tmp_path, values(), policy())
    assert run_study(federation.coordinator, federation, seed=1) == "completed", federation.result()["reason"]
    plan = federation.plan
    for site in federation.sites:
        with federation.home(site).open_ledger() as ledger:
            # the encoder is none of the events: what it was trained on is public
            assert [event for event in study_events(plan, "train") if event not in ledger.events("train")] == []
    pool = pool_packages(federation.coordinator.root, plan, Registry(federation.coordinator.root))
    publish(pool, plan, tmp_path / "out", load_authority(federation.coordinator.root), {"exchanges": []}, None)
    verify_dataset(tmp_path / "out" / "published", None)
    for certificate in pool.certificates.values():
        assert certificate.encoders == plan.encoders
        check_claims(certificate, plan)
        with pytest.raises(VerificationError, match="other given encoders"):
            check_claims(certificate.model_copy(update={"encoders": {}}), plan)
    report = (tmp_path / "out" / "published" / "report.html").read_text()
    assert (
        f'declared trained on public images (ImageNet, sha256 <span class="hash">{plan.encoders["eyes"].sha256}'
        in report
    )
    rows = list(csv.DictReader((tmp_path / "out" / "published" / "labels.csv").open()))
    assert {(row["method"], row["guarantee"]) for row in rows} == {("dp-sampling", "formal"), ("k-salsa", "syntactic")}


def test_a_coordinator_without_the_file_stops_before_any_site_is_asked(tmp_path, monkeypatch):
    federation = make_federation(tmp_path, values(), policy())
    monkeypatch.setattr("sfumato_common.encoders.files.find_spec", lambda name: None)
    assert run_study(federation.coordinator, federation, seed=1) == "stopped"
    assert "not in the folder of encoders" in federation.result()["reason"]
    for site in federation.sites:
        with federation.home(site).open_ledger() as ledger:
            assert ledger.events("train") == []


def test_the_coordinator_keeps_the_plans_files_under_the_plans_names_and_no_other(tmp_path, monkeypatch):
    plan = parse(values(), Plan, "plan")
    terms: EncoderTerms = plan.encoders["eyes"]
    data = find_encoder(tmp_path, terms)
    monkeypatch.setattr("sfumato_common.encoders.files.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="under 'encoders' in the plan"):
        keep_encoder(tmp_path, plan, data[:-1])
    with pytest.raises(VerificationError):
        load_encoders(tmp_path, plan)
    assert keep_encoder(tmp_path, plan, data) == "eyes"
    assert [path.name for path in tmp_path.iterdir()] == [terms.file]
    found = load_encoders(tmp_path, plan)
    assert found.keys() == {encoder_key("eyes")}
    assert encoder_in(plan, "eyes", found).length == 1280
