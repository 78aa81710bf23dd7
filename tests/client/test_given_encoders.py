"""Given encoders at a site: held against the plan before anything is charged, and used where the plan names them."""

from __future__ import annotations

import numpy as np
import pytest
from support.encoders import file_of, terms_for
from support.homes import make_home
from support.plans import dp_sgd, small_plan
from typer.testing import CliRunner

from sfumato_client.cli.main import app
from sfumato_client.site.admission import check_policy
from sfumato_client.site.given import gate_encoder
from sfumato_client.site.handler import Site
from sfumato_client.site.making import Maker
from sfumato_common.encoders.vgg import Vgg19Conv1
from sfumato_common.errors import PolicyRefusal, VerificationError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.protocol.messages import PROTOCOL, Request
from sfumato_common.strict import parse
from sfumato_common.study.load import plan_text
from sfumato_common.study.plan import Plan

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
VGG = file_of(Vgg19Conv1())
STYLE = terms_for(VGG, "vgg19-conv1")
EMBEDDING = {"kind": "embedding", "noise_multiplier": 2.0, "width": 8, "generator_steps": 2, "encoder": "eyes"}


def policy_of(**more) -> dict:
    release = {"allowed_methods": ["dp-sampling", "k-salsa"], "largest_set": 50}
    stages = ["spectral", "embedding"]
    return {
        "budget": {"epsilon": 60.0, "delta": 1e-5},
        "allowed_stages": stages,
        "minimum_patients": 4,
        "release": release,
        "answer_interval_s": 0.0,
        **more,
    }


def study_of() -> Plan:
    value = small_plan(EMBEDDING, released="embedding", sites={"alder": 100}, epsilon=50.0, noise=1.0)
    return parse({**value, "encoders": {"eyes": STYLE.model_dump() | {"architecture": "resnet18"}}}, Plan, "test")


@pytest.mark.parametrize("file", [None, VGG[:-1], VGG])
def test_an_encoder_that_is_missing_or_another_is_told_before_anything_is_charged(file, tmp_path, caplog):
    """The last one has the plan's hash, and is no network of the plan's architecture."""
    plan = study_of()
    home = make_home(tmp_path / "home", "alder", plan, policy_of(encoders=str(tmp_path / "shared")), 12)
    if file is not None:
        (tmp_path / "shared").mkdir()
        (tmp_path / "shared" / STYLE.file).write_bytes(file)
    sent = {name: np.zeros(spec.shape, np.float32) for name, spec in EXCHANGES["embedding"].sent(plan).items()}
    reply = Site(home, lambda data, plan: None).handle(Request(PROTOCOL, plan.digest, "stage", "embedding", 1, sent))
    assert (reply.status, reply.code) == ("refused", "verification-failed")
    with home.open_ledger() as ledger:
        assert ledger.events("train") == []
    (tmp_path / "plan.yaml").write_text(plan_text(plan))
    told = CliRunner().invoke(app, ["accept", "--home", str(home.root), str(tmp_path / "plan.yaml"), "--yes"])
    assert isinstance(told.exception, VerificationError)
    assert "net.safetensors" in str(told.exception)
    assert str(tmp_path) not in str(told.exception)


def test_a_release_whose_encoder_is_missing_charges_nothing_and_waits(tmp_path):
    salsa = {"method": "k-salsa", "model": "gan", "images": 2, "k": 2, "content_encoder": "efficientnet-lite0"}
    value = small_plan(dp_sgd(kind="gan", width=8), released="gan", sites={"alder": 100}, epsilon=50.0, noise=1.0)
    plan = parse({**value, "release": [salsa]}, Plan, "test")
    policy = policy_of(allowed_stages=["spectral", "gan"])
    home = make_home(tmp_path / "home", "alder", plan, policy, 12)
    with home.open_ledger() as ledger, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sfumato_common.encoders.files.find_spec", lambda name: None)
        maker = Maker(home, plan, home.policy(), "", {}, ledger)
        with pytest.raises(VerificationError, match="not in the folder of encoders"):
            maker.work(until=0.0 + 1e12)
        assert ledger.events("train") == []


def test_the_gates_encoder_judges_from_the_sites_own_folder_and_is_no_methods(tmp_path):
    terms = STYLE.model_dump() | {"architecture": "resnet18"}
    policy = policy_of()
    policy["release"] = {**policy["release"], "gate": {"declare_verdict": True, "encoder": terms}}
    plan = study_of()
    home = make_home(tmp_path / "home", "alder", plan, policy, 12)
    with pytest.raises(PolicyRefusal, match="which is to judge them"):
        check_policy(plan, home.policy())
    plain = parse(small_plan(released="spectral", sites={"alder": 100}, epsilon=50.0, noise=1.0), Plan, "test")
    check_policy(plain, home.policy())
    with pytest.raises(VerificationError, match="not in the folder of encoders"):
        gate_encoder(home, home.policy().release.gate.encoder, home.policy())
