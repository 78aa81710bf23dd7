"""Places that lack a group, from the plan to the published list: drawn from the model, called so, counted, held."""

import copy
import csv
from collections import Counter

import pytest
from support.federations import make_federation
from support.studies import PLAN, POLICY

from sfumato_common.errors import VerificationError
from sfumato_server.coordinator.study import run_study
from sfumato_server.enrol import Registry, load_authority
from sfumato_server.pool import pool_packages
from sfumato_server.publish import publish, shard, verify, verify_dataset

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
FILL = "dp-sampling-for-k-same"
SAME = {"method": "k-same", "images": 5, "k": 2, "encoder_steps": 2, "refinement_steps": 1, "filled_at": {"birch": 3}}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    gate = {**POLICY["release"]["gate"], "identity_share_limit": 1.0}
    methods = ["dp-sampling", "k-same"]
    rules = {**POLICY["release"], "allowed_methods": methods, "smallest_group": 2, "gate": gate}
    values = {**copy.deepcopy(PLAN), "release": [SAME]}
    federation = make_federation(tmp_path_factory.mktemp("filled"), values, {**POLICY, "release": rules})
    assert run_study(federation.coordinator, federation, seed=1, classifier_steps=5) == "completed"
    root, plan = federation.coordinator.root, federation.plan
    out, utility = tmp_path_factory.mktemp("out"), federation.result()["utility"]
    publish(pool_packages(root, plan, Registry(root)), plan, out, load_authority(root), {"exchanges": []}, utility)
    return out / "published"


def test_every_filled_image_says_what_it_is_and_has_the_word_of_what_it_is(published):
    verify_dataset(published)
    rows = list(csv.DictReader((published / "labels.csv").open()))
    found = Counter((row["site"], row["method"], row["guarantee"]) for row in rows)
    assert found == {
        ("alder", "k-same", "syntactic"): 5,
        ("birch", "k-same", "syntactic"): 2,
        ("birch", FILL, "formal"): 3,
        ("cedar", "k-same", "syntactic"): 5,
    }
    report = (published / "report.html").read_text()
    assert FILL in report and "the number is the plan's" in report


def test_another_number_of_filled_places_than_the_plans_does_not_verify(published, monkeypatch):
    monkeypatch.setattr(verify, "is_fill", lambda method: method == FILL)
    real = verify.Plan.part_at
    fewer = lambda plan, *which: [item.model_copy(update={"images": 1}) for item in real(plan, *which)]  # noqa: E731
    # as many images in all as before: that they are is another check
    monkeypatch.setattr(
        shard, "shard_sizes", lambda plan, site, part: [sum(i.images for i in real(plan, site, "", part))]
    )
    monkeypatch.setattr(verify.Plan, "part_at", fewer)
    with pytest.raises(VerificationError, match="places are filled"):
        verify_dataset(published)
