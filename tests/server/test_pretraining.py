"""Public starts are made from public images alone, are the same everywhere, and fit the plan that pins them."""

import copy
import dataclasses
import re

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file, save_file
from support.plans import dp_sgd
from typer.testing import CliRunner

from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators.components import components_of
from sfumato_common.generators.starts import read_start, start_key, start_schema
from sfumato_common.phantom.textures import KINDS, textures
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.types import fingerprint
from sfumato_server.cli.main import app
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.coordinator.pretraining import SOURCES, pretrain, public_cohorts, public_release
from sfumato_server.rounds.starts import load_starts

DP = dp_sgd(rounds=2, noise_multiplier=2.0)
PLAN = {
    "study": "public",
    "image": {"size": 16, "channels": 1},
    "labels": ["normal", "opacity"],
    "sites": {"alder": {"nominal_patients": 40}, "birch": {"nominal_patients": 40}},
    "privacy": {"epsilon": 100.0, "delta": 1.0e-5},
    "stages": [
        {"kind": "spectral", "bandwidth": 4, "clip_radius": 2.0, "noise_multiplier": 1.0},
        {"kind": "gan", "width": 8, "generator_steps": 2, "fakes": 8, **DP},
        {"kind": "flow", "levels": 1, "steps_per_level": 2, "hidden": 8, **DP},
        {"kind": "stylegan2", "channel_base": 128, "channel_max": 8, **DP},
        {"kind": "diffusion", "width": 16, "depth": 1, **DP},
    ],
    "release": [{"model": kind, "images": 4} for kind in ("spectral", "gan", "flow")],
    "federation": {"quorum": 1},
}


def plan_with(**changes) -> Plan:
    return parse({**copy.deepcopy(PLAN), **changes}, Plan, "plan")


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", ["gan", "flow", "stylegan2", "diffusion"])
def test_a_start_has_the_stages_form_and_is_drawn_again_alike(kind, source):
    plan = plan_with()
    weights, losses = pretrain(plan, kind, source, steps=3, patients=12)
    schema = start_schema(plan, plan.stage(kind))
    assert weights.keys() == schema.keys()
    assert all(schema[name].matches(value) and np.isfinite(value).all() for name, value in weights.items())
    assert len(losses) == 3
    assert fingerprint(pretrain(plan, kind, source, steps=3, patients=12)[0]) == fingerprint(weights)
    assert fingerprint(pretrain(plan, kind, source, steps=3, patients=12, seed=1)[0]) != fingerprint(weights)


@pytest.mark.parametrize("radii", ["fixed", "charged"])
def test_sites_fitted_apart_learn_from_cohorts_of_their_own(radii):
    spectral = {**PLAN["stages"][0], "by_site": True, "radii": radii, "noise_multiplier": 0.05}
    plan = plan_with(stages=[spectral, *PLAN["stages"][1:]])
    cohorts = public_cohorts(plan, "phantom", 40, seed=0)
    cohorts["birch"] = dataclasses.replace(cohorts["birch"], images=255 - cohorts["birch"].images // 2)
    released = public_release(plan, cohorts, np.random.default_rng(0))
    schema = EXCHANGES["spectral"].released(plan)
    assert released.keys() == schema.keys()
    assert all(schema[name].matches(value) for name, value in released.items())
    brightness = released["spectral/mean"][:, 0]
    alder, birch = (components_of(plan, site, torch.arange(2)).numpy() for site in ("alder", "birch"))
    assert brightness[birch].min() > brightness[alder].max()
    for kind in ("gan", "flow", "diffusion"):
        weights, _ = pretrain(plan, kind, "phantom", steps=2, patients=12)
        assert {name: value.shape for name, value in weights.items()} == {
            name: spec.shape for name, spec in start_schema(plan, plan.stage(kind)).items()
        }


@pytest.mark.parametrize("kind", ["flow", "diffusion"])
def test_something_is_learned_of_the_public_images(kind):
    _, losses = pretrain(plan_with(), kind, "phantom", steps=60, patients=30)
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_three_channels_and_many_labels():
    labels = ["a", "normal", "b", "c"]
    plan = plan_with(image={"size": 16, "channels": 3}, labels=labels)
    for source in SOURCES:
        cohorts = public_cohorts(plan, source, 30, seed=3)
        assert all(cohort.images.shape[1:] == (16, 16, 3) for cohort in cohorts.values())
        assert {int(k) for cohort in cohorts.values() for k in cohort.labels} <= set(range(4))
        assert not np.array_equal(cohorts["alder"].images[:5], cohorts["birch"].images[:5])


@pytest.mark.parametrize(("kind", "source"), [("flow", "real"), ("spectral", "phantom"), ("choice", "phantom")])
def test_what_cannot_be_pretrained_is_refused(kind, source):
    with pytest.raises(ConfigError):
        pretrain(plan_with(), kind, source, steps=1, patients=12)


def test_textures_are_of_three_kinds_and_use_the_range():
    images, kinds = textures(5, 60, 16)
    assert images.shape == (60, 16, 16)
    assert set(kinds.tolist()) == set(range(len(KINDS)))
    assert images.std(axis=(1, 2)).min() > 5
    assert np.array_equal(images, textures(5, 60, 16)[0])


def test_from_the_command_line_to_the_coordinators_home(tmp_path):
    runner, plan_file, weights = CliRunner(), tmp_path / "plan.yaml", tmp_path / "start.safetensors"
    plan_file.write_text(yaml.safe_dump(PLAN))
    made = runner.invoke(
        app, ["model", "pretrain", "start", str(plan_file), "--stage", "flow", "--on", "phantom", "-o", str(weights),
              "--steps", "2", "--patients", "12"],
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    (digest,) = re.findall(r"sha256: ([0-9a-f]{64})", made.output)
    values = copy.deepcopy(PLAN)
    values["stages"][2]["start"] = {"source": "phantom", "sha256": digest}
    plan_file.write_text(yaml.safe_dump(values))
    home = tmp_path / "home"
    without = runner.invoke(app, ["coordinator", "init", "--home", str(home), "--plan", str(plan_file)])
    assert isinstance(without.exception, ConfigError)
    begun = runner.invoke(
        app, ["coordinator", "init", "--home", str(home), "--plan", str(plan_file), "--start", str(weights)]
    )
    assert begun.exit_code == 0, begun.output
    found = load_starts(CoordinatorHome(home).starts, CoordinatorHome(home).plan())
    assert fingerprint(found[start_key("flow")]) == digest


def test_a_checkpoint_of_ones_own_is_brought_into_form(tmp_path):
    runner, plan_file, out = CliRunner(), tmp_path / "plan.yaml", tmp_path / "start.safetensors"
    plan_file.write_text(yaml.safe_dump(PLAN))
    weights, _ = pretrain(plan_with(), "flow", "textures", steps=1, patients=12)
    mine = tmp_path / "mine.safetensors"
    save_file({**{name: value.astype(np.float64) for name, value in weights.items()}, "extra/x": np.zeros(2)}, mine)
    command = ["model", "import", str(mine), "--plan", str(plan_file), "--stage", "flow", "-o", str(out)]
    made = runner.invoke(app, command)
    assert made.exit_code == 0, made.output
    assert fingerprint(load_file(out)) == fingerprint(weights)
    assert fingerprint(weights) in made.output
    with pytest.raises(VerificationError):
        read_start(plan_with(), plan_with().stage("gan"), mine.read_bytes())
