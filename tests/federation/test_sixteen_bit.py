"""A whole study of 16-bit images: what the sites hold, draw, judge, sign and upload, and what is published."""

from __future__ import annotations

import copy

import numpy as np
from PIL import Image
from support.federations import make_federation
from support.studies import PLAN

from sfumato_common.imaging import decode_png
from sfumato_common.protocol.messages import PROTOCOL, Request
from sfumato_server.coordinator.study import run_study
from sfumato_server.enrol import Registry, load_authority
from sfumato_server.pool import pool_packages
from sfumato_server.publish import publish, verify_dataset, write_overview


def test_sixteen_bits_from_the_store_to_the_published_set(tmp_path):
    values = copy.deepcopy(PLAN)
    values["image"]["bits"] = 16
    values["stages"] = [values["stages"][0], values["stages"][2]]
    values["release"] = [{"model": "spectral", "images": 12}, {"model": "flow", "images": 8}]
    federation = make_federation(tmp_path, values)
    outcome = run_study(federation.coordinator, federation, seed=1, classifier_steps=5)
    assert outcome == "completed", federation.result()["reason"]
    pool = pool_packages(federation.coordinator.root, federation.plan, Registry(federation.coordinator.root))
    assert {item.facts.model for item in pool.items} == {"spectral", "flow"}
    pixels = np.stack([decode_png(item.png) for item in pool.items])
    assert pixels.dtype == np.uint16
    assert len(np.unique(pixels % 256)) == 256
    out = tmp_path / "out"
    utility = federation.result()["utility"]
    publish(pool, federation.plan, out, load_authority(federation.coordinator.root), {"exchanges": []}, utility)
    verify_dataset(out / "published", None)
    assert write_overview(out / "published", out / "overview.png") > 0
    with Image.open(out / "overview.png") as picture:
        assert picture.mode in ("L", "RGB")


def test_a_store_of_eight_bits_does_not_serve_a_plan_of_sixteen(tmp_path):
    federation = make_federation(tmp_path)
    values = copy.deepcopy(PLAN) | {"study": "deep"}
    values["image"]["bits"] = 16
    deep = type(federation.plan).model_validate(values)
    home = federation.home("alder")
    home.pin(deep)
    reply = federation.sites["alder"].handle(Request(PROTOCOL, deep.digest, "stage", "spectral", 1, {}))
    assert (reply.status, reply.code) == ("failed", "failed")
    assert "another form" in next((home.steward_folder / "errors").glob("*.txt")).read_text()
