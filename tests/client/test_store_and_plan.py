"""A store knows what it was ingested for: another plan's labels or form are refused, before anything is charged.

The attack: a store under labels [normal, opacity] and a plan with the two the other way round, or with other names.
Every number fits, so nothing else would notice: opacities would train, be counted and be released as normal.
"""

import json
import sys

import numpy as np
import pytest
import yaml
from support.homes import make_home
from support.studies import PLAN, POLICY

from sfumato_client.cli import main as cli
from sfumato_client.dataset import SiteStore, StoreFacts
from sfumato_client.site.handler import Site
from sfumato_client.site.home import SiteHome
from sfumato_common.errors import DataError
from sfumato_common.metrics.utility import classifier_schema
from sfumato_common.protocol.messages import PROTOCOL, Request
from sfumato_common.strict import parse
from sfumato_common.study.load import plan_text
from sfumato_common.study.plan import Plan

VALUES = {**PLAN, "stages": PLAN["stages"][:1], "release": [{"model": "spectral", "images": 4}]}
OTHERS = {
    "order": {"labels": ["opacity", "normal"]},
    "names": {"labels": ["cat", "dog"]},
    "number": {"labels": ["normal", "opacity", "effusion"]},
    "size": {"image": {"size": 28}},
    "bits": {"image": {"size": 24, "bits": 16}},
    "channels": {"image": {"size": 24, "channels": 3}},
}


def other(name: str) -> Plan:
    return parse({**VALUES, "study": "other", **OTHERS[name]}, Plan, "plan")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> SiteHome:
    root = tmp_path_factory.mktemp("alder")
    return make_home(root, "alder", parse(VALUES, Plan, "plan"), POLICY, 40)


@pytest.mark.parametrize("name", OTHERS)
def test_accept_refuses_a_plan_that_the_store_was_not_ingested_for(home, tmp_path, monkeypatch, capsys, name):
    (tmp_path / "plan.yaml").write_text(plan_text(other(name)))
    words = ["sfumato-site", "accept", "--home", home.root, "--yes", tmp_path / "plan.yaml"]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code
    assert "ingest again for this plan" in capsys.readouterr().err
    assert not (home.root / "plans" / f"{other(name).digest}.json").exists()


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("kind", ["stage", "utility"])
def test_nothing_is_charged_under_a_plan_that_was_pinned_all_the_same(home, name, kind):
    plan = other(name)
    home.pin(plan)
    arrays = {} if kind == "stage" else {
        key: np.zeros(spec.shape, np.float32) for key, spec in classifier_schema(plan).items()
    }  # fmt: skip
    request = Request(PROTOCOL, plan.digest, kind, "spectral" if kind == "stage" else "", int(kind == "stage"), arrays)
    reply = Site(home, lambda data, plan: None).handle(request)
    (home.root / "plans" / f"{plan.digest}.json").unlink()
    assert reply.status == "failed"
    assert "ingest again" in (home.steward_folder / "errors" / f"{reply.reference}.txt").read_text()
    with home.open_ledger() as ledger:
        assert ledger.entries() == []


def test_facts_are_read_without_the_images_and_an_older_store_is_refused(home, tmp_path):
    (tmp_path / "store.json").write_bytes((home.store / "store.json").read_bytes())
    facts = StoreFacts.read(tmp_path, home.store_key())
    assert facts == SiteStore.open(home.store, home.store_key()).facts
    assert facts.labels == ("normal", "opacity")
    value = json.loads((tmp_path / "store.json").read_text())
    del value["labels"]
    for wrong in ({**value, "format": 1}, value, [], {**value, "labels": 3}):
        (tmp_path / "store.json").write_text(yaml.safe_dump(wrong))
        with pytest.raises(DataError, match="ingest again"):
            StoreFacts.read(tmp_path, home.store_key())
