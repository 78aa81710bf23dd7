"""`sfumato dataset evaluate` end to end: a published folder and an index in, tables, JSON and a page out."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sfumato_common.errors import ConfigError, DataError
from sfumato_common.phantom.dicom import write_cohort
from sfumato_server.cli.main import app
from sfumato_server.evaluate import Settings, evaluate
from sfumato_server.evaluate.made import read_made
from sfumato_server.evaluate.page import page
from sfumato_server.evaluate.report import PRIVATE, PUBLIC
from sfumato_server.pool import pool_packages
from sfumato_server.publish import open_folder, publish

QUICK = Settings(seeds=1, draws=20, steps={"cnn": 2, "resnet18": 1})


@pytest.fixture
def published(founded: Any, tmp_path: Path) -> Path:
    """18 images of 16 px: 6 a site."""
    consortium = founded.copied(tmp_path / "coordinator")
    (consortium.home / "intake").mkdir(exist_ok=True)
    for number, site in enumerate(consortium.plan.sites):
        images = consortium.images(number, count=6)
        (consortium.home / "intake" / f"{site}.formal.sfumato").write_bytes(consortium.package(site, images=images))
    pool = pool_packages(consortium.home, consortium.plan, consortium.registry)
    return publish(pool, consortium.plan, tmp_path, consortium.authority, {}, None).folder


@pytest.fixture
def index(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = []
    for at in range(80):
        Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(tmp_path / f"{at}.png")
        split = "train" if at < 40 else "test"
        rows.append([f"{at}.png", ("abnormal", "normal")[at % 2], f"p{at}", split, "<b>east</b>"])
    with (tmp_path / "index.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["file", "label", "patient", "split", "site"], *rows])
    return tmp_path / "index.csv"


def run(*words: object) -> Any:
    return CliRunner().invoke(app, ["dataset", "evaluate", *map(str, words)])


def test_tables_json_and_page_say_the_same_and_that_figures_of_private_images_are_private(
    published: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SFUMATO_COORDINATOR_HOME", raising=False)
    out = tmp_path / "found" / "evaluation.json"
    out.parent.mkdir()
    words = (published, "--real", index, "--figures", "memorisation,diversity", "--device", "cpu")
    done = run(*words, "--out", out, "--html")
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert {line["figure"] for line in found["figures"]} == {"memorisation", "diversity"}
    assert (
        found["data"] == "private" and PRIVATE in found["notices"] and found["patients"] == {"train": 40, "tested": 40}
    )
    assert PRIVATE.split(".")[0] in " ".join(done.output.split()) and "UNVERIFIED" in done.output
    html = out.with_suffix(".html").read_text()
    assert "Memorisation" in html and PRIVATE.split(".")[0] in html and "<script" not in html
    shown = run(*words, "--json", "--public")
    said = json.loads(shown.stdout)
    assert said["figures"] == found["figures"] and said["data"] == "declared public"
    assert PUBLIC in said["notices"] and PRIVATE not in said["notices"]


def test_on_a_coordinators_machine_it_warns_and_refuses_nothing(
    published: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFUMATO_COORDINATOR_HOME", "coordinator")
    done = run(published, "--real", index, "--figures", "diversity")
    assert done.exit_code == 0 and "real images of patients have no place here" in " ".join(done.output.split())


def test_all_figures_of_a_set_of_noise_and_every_word_on_the_page_is_escaped(published: Path, index: Path) -> None:
    told: list[str] = []
    report = evaluate(published, index, QUICK, note=told.append)
    assert {line.figure for line in report.rows} == {
        "tstr", "methods", "own", "augmentation", "calibration", "groups", "fidelity", "memorisation", "diversity"
    }  # fmt: skip
    # 18 images are not compared as sets, and a site of the index that the set has not is not trained for
    assert [line.note for line in report.rows if line.figure == "fidelity"] == [
        "too few images: 18 of each set, and 40 are needed"
    ]
    assert "no figure: its synthetic images" in next(line.note for line in report.rows if line.figure == "own")
    html = page(report)
    assert "&lt;b&gt;east" in html and "<b>east" not in html
    assert report.facts["steps"] == {"cnn": 2, "resnet18": 1} and any("training 1 of" in line for line in told)
    assert "reading the published set" in told


def test_a_large_sets_images_are_drawn_from_all_of_it_and_the_report_says_so(published: Path, index: Path) -> None:
    made = read_made(published, 10)
    assert made.count == 18 and len(made.images) == 10 and made.repeated == 0
    entries = {image.entry.pixel_sha256: image for image in open_folder(published).images()}
    labels = {image.pixels.tobytes(): made.plan.labels.index(image.entry.label) for image in entries.values()}
    assert [labels[pixels.tobytes()] for pixels in made.images.pixels] == made.images.labels.tolist()
    assert len(set(made.images.groups["site"])) > 1
    report = evaluate(published, index, replace(QUICK, most=10), ["diversity"])
    assert any("10 of the set's 18 images" in line for line in report.notices)


def test_what_cannot_be_is_said_before_anything_is_read(published: Path, index: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no figure 'fid'; choose of tstr, methods"):
        evaluate(published, index, QUICK, ["fid"])
    with pytest.raises(ConfigError, match="not a published data set"):
        evaluate(tmp_path, index, QUICK)
    with pytest.raises(DataError, match="cannot be read"):
        evaluate(published, tmp_path / "none.csv", QUICK)
    with pytest.raises(ConfigError, match="trains nothing"):
        evaluate(published, index, replace(QUICK, steps={"cnn": 100_000}, minutes=0.001), ["tstr"])


def test_dicom_files_of_a_folder_with_its_table_are_evaluated(published: Path, tmp_path: Path) -> None:
    write_cohort(tmp_path / "own", "north", 60, 1, "cirrus", size=80)
    words = (published, "--real", tmp_path / "own" / "labels.csv", "--holdout", 0.5, "--figures", "tstr", "--quick")
    wrong = run(*words)
    assert isinstance(wrong.exception, DataError) and "--map 'opacity=LABEL'" in str(wrong.exception)
    done = run(*words, "--map", "opacity=abnormal", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["patients"] == {"train": 30, "tested": 30}
