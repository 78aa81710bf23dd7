"""`sfumato model`: the card on the screen, images from a file, and a clear line for what does not fit."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from PIL import Image
from support.small_study import VALUES
from typer.testing import CliRunner

from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.cli.main import app
from sfumato_server.rounds.checkpoint import Checkpoints
from sfumato_server.rounds.strategies import strategy_of


def trained(plan: Plan, folder):
    """Checkpoints of a made-up spectral model, and of a flow that has not moved."""
    kept, spectral = Checkpoints(folder, plan), {}
    for name, spec in EXCHANGES["spectral"].released(plan).items():
        value = np.eye(spec.shape[-1]) if name.endswith(("factor", "signal")) else np.full(spec.shape[-1], 0.5)
        spectral[name] = np.broadcast_to(value, spec.shape).astype(np.float32)
    kept.save("spectral", 1, spectral, spectral)
    flow = strategy_of(plan, plan.stage("flow"), {"spectral": spectral})
    kept.save("flow", 1, flow.state(), flow.released())
    kept.finish("flow", flow.released())
    return folder / plan.digest


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    plan = parse(VALUES, Plan, "test")
    (folder / "plan.yaml").write_text(yaml.safe_dump(VALUES))
    (folder / "plan.json").write_text(json.dumps(plan.model_dump(mode="json")))
    return folder / "plan.yaml", trained(plan, folder)


def run(*arguments):
    result = CliRunner().invoke(app, [str(item) for item in ("model", *arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_info_prints_the_card(files):
    said = " ".join(run("info", files[1] / "flow-0001.safetensors").split())
    for piece in ("small", "flow", "1 of 3", "delta 1e-05", "add/remove", "'train' cohort", "torch"):
        assert piece in said
    card = json.loads(run("info", files[1] / "flow-0001.safetensors", "--json"))
    assert card["sha256"] in "".join(character for character in said if character.isalnum())
    assert card["epsilon"] > 0
    assert card["plan_hash"] == files[1].name


@pytest.mark.parametrize("name", ["flow-0001", "flow-model", "spectral-0001"])
def test_sample_writes_images_and_a_sheet(files, tmp_path, name):
    plan, folder = files
    run("sample", folder / f"{name}.safetensors", "--plan", plan, "--count", 5, "--label", "opacity", "-o", tmp_path)
    images = sorted(tmp_path.glob("*-opacity-*.png"))
    assert len(images) == 5
    assert all(Image.open(path).size == (16, 16) for path in images)
    assert Image.open(tmp_path / "sheet.png").width >= 500


def test_a_seed_draws_the_same_images_from_either_form_of_file_and_plan(files, tmp_path):
    plan, folder = files
    for number, (name, form) in enumerate([("flow-0001", "yaml"), ("flow-model", "json")]):
        source, given = folder / f"{name}.safetensors", plan.with_suffix(f".{form}")
        run("sample", source, "--plan", given, "--count", 6, "--seed", 3, "-o", tmp_path / str(number))
    first, second = (sorted((tmp_path / part).iterdir()) for part in "01")
    assert [path.name for path in first] == [path.name for path in second]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    run("sample", folder / "flow-model.safetensors", "--plan", plan, "--count", 6, "--seed", 4, "-o", tmp_path / "2")
    assert (tmp_path / "2" / "sheet.png").read_bytes() != (tmp_path / "0" / "sheet.png").read_bytes()


def test_the_spectral_model_within_a_flow_file_can_be_drawn(files, tmp_path):
    run("sample", files[1] / "flow-model.safetensors", "--plan", files[0], "--model", "spectral", "-o", tmp_path)
    assert len(list(tmp_path.glob("spectral-*.png"))) == 64


def test_a_site_is_drawn_alone_where_sites_are_fitted_apart(tmp_path):
    values = json.loads(json.dumps(VALUES))
    values["stages"][0]["by_site"] = True
    values["sites"] = {site: {"nominal_patients": 100} for site in ("alder", "birch")}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(values))
    folder = trained(parse(values, Plan, "test"), tmp_path)
    out = tmp_path / "out"
    source = folder / "spectral-0001.safetensors"
    run("sample", source, "--plan", tmp_path / "plan.yaml", "--site", "birch", "--count", 9, "-o", out)
    names = {path.name.rpartition("-")[0] for path in out.glob("spectral-*.png")}
    assert names
    assert names <= {"spectral-birch-normal", "spectral-birch-opacity"}


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        (["--model", "gan"], ConfigError, "holds the model of stage 'flow'"),
        (["--model", "choice"], ConfigError, "no images can be drawn"),
        (["--label", "fracture"], ConfigError, "no label 'fracture'"),
        (["--site", "alder"], ConfigError, "no model to a site"),
    ],
)
def test_what_the_file_does_not_have_is_said(files, tmp_path, changes, error, words):
    with pytest.raises(error, match=words):
        run("sample", files[1] / "flow-model.safetensors", "--plan", files[0], "-o", tmp_path, *changes)
    assert not list(tmp_path.iterdir())


def test_another_plan_and_a_file_that_is_none_are_refused(files, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({**VALUES, "study": "large"}))
    with pytest.raises(VerificationError, match="trained under plan"):
        run("sample", files[1] / "flow-model.safetensors", "--plan", other, "-o", tmp_path / "out")
    with pytest.raises(VerificationError, match="damaged"):
        run("info", files[0])
    assert not (tmp_path / "out").exists()
