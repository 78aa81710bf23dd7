"""What a coordinator sees of training: a sheet a round, figures that show a divergence, and a study that goes on."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.federations import make_federation
from support.studies import PLAN

from sfumato_common.exchanges import EXCHANGES
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.coordinator.study import run_study
from sfumato_server.rounds.card import read_checkpoint
from sfumato_server.rounds.checkpoint import released_model
from sfumato_server.status import sheets
from sfumato_server.status.board import StatusBoard
from sfumato_server.status.live import LivePage
from sfumato_server.status.overview import PAGE, overview
from sfumato_server.status.sheets import RoundSheets, read_sheets, training_pictures
from sfumato_server.status.view import render


def view(root, done):
    return overview(root, done.plan)


def finish(federation):
    return run_study(federation.coordinator, federation, seed=1, classifier_steps=5)


def study_of_a_flow(root: Path):
    """A federation whose plan has two rounds of flow and no GAN."""
    stages = [stage if stage["kind"] == "spectral" else {**stage, "rounds": 2} for stage in PLAN["stages"]]
    stages = [stage for stage in stages if stage["kind"] != "gan"]
    release = [item for item in PLAN["release"] if item["model"] != "gan"]
    return make_federation(root, {**PLAN, "stages": stages, "release": release})


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    federation = study_of_a_flow(tmp_path_factory.mktemp("study"))
    assert finish(federation) == "completed"
    return federation


def last_model(federation, stage):
    path = federation.coordinator.checkpoints / federation.plan.digest / f"{stage}-model.safetensors"
    return released_model(path)[1]


def test_a_study_leaves_a_sheet_a_round_a_page_and_cards(done):
    plan, home = done.plan, done.coordinator
    drawn = read_sheets(home.root, plan.digest)
    rounds = [(stage.kind, number) for stage in plan.stages for number in range(1, stage.rounds + 1)]
    assert [(sheet.stage, sheet.round) for sheet in drawn] == rounds
    page = home.live_page.read_text()
    assert "completed" in page
    assert 'http-equiv="refresh"' not in page
    for sheet in drawn:
        assert f'src="sheets/{sheet.file}"' in page
        picture = np.asarray(Image.open(home.root / "sheets" / sheet.file))
        assert picture.std() > 1
    status = json.loads(home.status_file.read_text())
    assert status["sheet"]["file"] == f"{rounds[-1][0]}-{rounds[-1][1]:04d}.png"
    for stage, number in rounds:
        card, _ = read_checkpoint(home.checkpoints / plan.digest / f"{stage}-{number:04d}.safetensors")
        assert (card.stage, card.round, card.plan_hash) == (stage, number, plan.digest)
    assert card.epsilon == pytest.approx(status["epsilon_spent"], abs=2e-6)
    pictures = training_pictures(home.root, plan.digest)
    assert len(pictures) == len(rounds)
    assert all(item["uri"].startswith("data:image/png;base64,") for item in pictures)


def test_the_board_names_the_newest_sheet(done):
    from rich.console import Console

    status = view(done.coordinator.root, done)
    console = Console(width=200)
    with console.capture() as said:
        console.print(render(status))
    assert f"sheets/{status['sheet']['file']}" in said.get()
    status["sheet"]["remark"] = "training may be diverging"
    with console.capture() as said:
        console.print(render(status))
    assert "may be diverging" in said.get()


def test_board_and_page_say_that_an_epsilon_is_infinite(done, tmp_path, monkeypatch):
    """A private plan with next to no noise: JSON has null for what no format takes."""
    board = StatusBoard(tmp_path / "status.json", done.plan)
    monkeypatch.setattr(board, "_epsilon", math.inf)
    LivePage(tmp_path, done.plan, board)
    assert "Epsilon infinite of" in (tmp_path / PAGE).read_text()
    assert "epsilon infinite of" in "".join(map(str, render(view(tmp_path, done)).renderables))


def test_latents_are_the_same_in_every_round_and_on_every_machine(done, tmp_path):
    plan, model = done.plan, last_model(done, "flow")
    files = []
    for part, seed in (("first", 1), ("second", 2)):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        drawer = RoundSheets(tmp_path / part, plan)
        files += [tmp_path / part / "sheets" / drawer.draw("flow", number, model).file for number in (1, 2)]
        assert torch.equal(torch.get_rng_state(), state), "drawing must not move the study's randomness"
    assert len({path.read_bytes() for path in files}) == 1


def changed(model, how):
    return {name: how(value) if name.startswith("flow/") else value for name, value in model.items()}


def test_a_training_that_diverges_is_seen_and_a_healthy_one_is_not_accused(done, tmp_path):
    model, drawer = last_model(done, "flow"), RoundSheets(tmp_path, done.plan)
    healthy = drawer.draw("flow", 1, model)
    assert healthy.remark == ""
    # a wild step of the coupling's last layers, as a learning rate a thousand times too large would take
    wild = drawer.draw("flow", 2, changed(model, lambda value: value + 3.0))
    assert wild.remark
    assert max(wild.distance / healthy.usual_spread, wild.clamped, wild.spread / healthy.usual_spread) > 0.25
    broken = drawer.draw("flow", 3, changed(model, lambda value: value * np.float32("nan")))
    assert "not finite" in broken.remark
    assert [sheet.round for sheet in read_sheets(tmp_path, done.plan.digest)] == [1, 2, 3]


def test_a_drawing_that_fails_stops_nothing(tmp_path, monkeypatch):
    federation = study_of_a_flow(tmp_path)

    def fails(*arguments):
        raise MemoryError

    monkeypatch.setattr(sheets, "sample_images", fails)
    assert finish(federation) == "completed"
    assert read_sheets(federation.coordinator.root, federation.plan.digest) == []
    assert "No round has ended yet" in federation.coordinator.live_page.read_text()


def test_another_plans_sheets_are_not_shown(done, tmp_path):
    drawer = RoundSheets(tmp_path, done.plan)
    drawer.draw("spectral", 1, last_model(done, "spectral"))
    assert len(read_sheets(tmp_path, done.plan.digest)) == 1
    assert read_sheets(tmp_path, "0" * 64) == []
    (tmp_path / "sheets" / "index.json").write_text("{")
    assert read_sheets(tmp_path, done.plan.digest) == []


def test_sheets_of_sixteen_bits_are_drawn_in_grey_levels(tmp_path):
    federation = study_of_a_flow(tmp_path / "eight")
    values = federation.plan.model_dump(mode="json")
    values["image"]["bits"] = 16
    plan = parse(values, Plan, "plan")
    spectral = {}
    for name, spec in EXCHANGES["spectral"].released(plan).items():
        value = np.eye(spec.shape[-1]) if name.endswith(("factor", "signal")) else np.full(spec.shape[-1], 0.1)
        spectral[name] = np.broadcast_to(value, spec.shape).astype(np.float32)
    eight = RoundSheets(tmp_path / "a", federation.plan).draw("spectral", 1, spectral)
    sixteen = RoundSheets(tmp_path / "b", plan).draw("spectral", 1, spectral)
    assert 0 < sixteen.spread < 128
    assert 0.5 < sixteen.spread / eight.spread < 2
    assert Image.open(tmp_path / "b" / "sheets" / sixteen.file).mode == "L"


def test_rows_name_the_sites_where_they_are_fitted_apart():
    values = {**PLAN, "stages": [{**PLAN["stages"][0], "by_site": True}, *PLAN["stages"][1:]]}
    plan = parse(values, Plan, "plan")
    names = sheets.component_names(plan, sheets.components_shown(plan))
    assert names == [f"{site}: {label}" for site in ("alder", "birch", "cedar") for label in ("normal", "opacity")]
