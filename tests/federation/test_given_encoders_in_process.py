"""A whole study in the features of a given encoder: embedding release and k-SALSA's content, published and checked."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from support.encoders import default_terms, needs_default
from support.federations import make_federation
from support.studies import PLAN, POLICY

from sfumato_client.site.admission import check_policy
from sfumato_common.encoders.files import find_encoder
from sfumato_common.encoders.settings import EncoderTerms
from sfumato_common.errors import ConfigError, PolicyRefusal, VerificationError
from sfumato_common.package.features import read_features
from sfumato_common.strict import load_yaml, parse
from sfumato_common.study.costs import study_events
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy
from sfumato_server.coordinator.publishing import _vectors
from sfumato_server.coordinator.study import run_study
from sfumato_server.enrol import Registry, load_authority
from sfumato_server.intake.claims import check_claims
from sfumato_server.pool import pool_packages
from sfumato_server.publish import publish, verify_dataset
from sfumato_server.rounds.encoders import encoder_in, encoder_key, keep_encoder, load_encoders

pytestmark = [pytest.mark.filterwarnings("ignore:TestNoise"), needs_default]
ROOT = Path(__file__).resolve().parents[2]
QUICK = {"k": 2, "steps": 2, "embedding_steps": 2, "encoder_steps": 2, "refinement_steps": 1}


def values() -> dict:
    embedding = {"kind": "embedding", "noise_multiplier": 1.0, "width": 8, "generator_steps": 2, "encoder": "eyes"}
    features = {"kind": "features", "noise_multiplier": 1.0, "encoder": "eyes", "dimensions": 16, "vectors": 50}
    salsa = {"method": "k-salsa", "model": "embedding", "images": 3, "content_encoder": "eyes", **QUICK}
    return {
        **PLAN,
        "encoders": {"eyes": default_terms(32)},
        "stages": [PLAN["stages"][0], embedding, features],
        "release": [{"model": "embedding", "images": 6}, salsa],
        "utility": None,
    }


def policy() -> dict:
    gate = {**POLICY["release"]["gate"], "identity_share_limit": 1.0}
    release = {**POLICY["release"], "allowed_methods": ["dp-sampling", "k-salsa"], "smallest_group": 2, "gate": gate}
    return {**POLICY, "allowed_stages": ["spectral", "embedding", "features"], "release": release}


@pytest.mark.slow
def test_a_study_runs_in_the_features_of_a_given_encoder(tmp_path):
    federation = make_federation(tmp_path, values(), policy())
    assert run_study(federation.coordinator, federation, seed=1) == "completed", federation.result()["reason"]
    plan = federation.plan
    for site in federation.sites:
        with federation.home(site).open_ledger() as ledger:
            # the encoder is none of the events: what it was trained on is public
            assert [event for event in study_events(plan, "train") if event not in ledger.events("train")] == []
    pool = pool_packages(federation.coordinator.root, plan, Registry(federation.coordinator.root))
    vectors = _vectors(federation.coordinator, plan)
    authority, out = load_authority(federation.coordinator.root), tmp_path / "out"
    publish(pool, plan, out, authority, {"exchanges": []}, None, vectors)
    verify_dataset(out / "published", None)
    file = out / "published" / "features.safetensors"
    read = read_features(file.read_bytes())
    assert read.vectors.shape == (50, 16)
    assert (read.card.guarantee, read.card.unit, read.card.delta) == ("formal", "patient", plan.privacy.delta)
    assert read.card.epsilon == pytest.approx(certified(pool), abs=1e-3)
    for certificate in pool.certificates.values():
        assert certificate.encoders == plan.encoders
        check_claims(certificate, plan)
        with pytest.raises(VerificationError, match="other given encoders"):
            check_claims(certificate.model_copy(update={"encoders": {}}), plan)
    report = (tmp_path / "out" / "published" / "report.html").read_text()
    assert f"epsilon {read.card.epsilon} at delta {plan.privacy.delta}" in report
    assert (
        f'declared trained on public images (ImageNet, sha256 <span class="hash">{plan.encoders["eyes"].sha256}'
        in report
    )
    rows = list(csv.DictReader((tmp_path / "out" / "published" / "labels.csv").open()))
    assert {(row["method"], row["guarantee"]) for row in rows} == {("dp-sampling", "formal"), ("k-salsa", "syntactic")}


def certified(pool) -> float:
    """What every site's certificate says that a patient pays."""
    (worst,) = {certificate.epsilon.patient.add_remove for certificate in pool.certificates.values()}
    return worst


def test_vectors_leave_only_where_the_policy_names_them():
    plan = parse(values(), Plan, "plan")
    allowed = {"site": "alder", **policy()}
    check_policy(plan, parse(allowed, Policy, "policy"))
    silent = {**allowed, "allowed_stages": ["spectral", "embedding"]}
    with pytest.raises(PolicyRefusal, match="stage 'features' is not in allowed_stages"):
        check_policy(plan, parse(silent, Policy, "policy"))
    shipped = load_yaml(ROOT / "configs" / "policy.yaml", Policy)
    assert "features" not in shipped.allowed_stages


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
