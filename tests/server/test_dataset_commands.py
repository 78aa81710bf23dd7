"""`sfumato dataset info`, `diff` and `card`: what a set is and what changed, for people and for scripts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.carded import published_set
from typer.testing import CliRunner

from sfumato_server.cli.main import app
from sfumato_server.publish import PublishedFolder, open_folder
from sfumato_server.publish.difference import difference
from sfumato_server.publish.manifest import ImageEntry


def run(*words: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["dataset", *map(str, words)])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def sets(founded: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same images of three sites, and of two of them under another plan."""
    first, second = (tmp_path_factory.mktemp(name) for name in ("first", "second"))
    sites = {name: {"nominal_patients": 100} for name in ("east", "north")}
    old = published_set(founded, first, 12)
    return old, published_set(founded, second, 10, sites=sites, publication={"licence": "CC0-1.0"})


def test_info_says_what_a_set_is_and_that_nobody_checked(sets: tuple[Path, Path]) -> None:
    said = run("info", sets[0])
    assert "36 images (16 x 16, grey, 8 bits) of east, north, south" in said
    assert "Epsilon 1.6981 at delta 0.0001 (unit: patient, adjacency: add/remove)" in said
    assert "licence: not stated" in said and "AUC 0.910 (95 % interval 0.870 to 0.940)" in said
    assert "UNVERIFIED" in said and len(said.splitlines()) <= 24
    found = json.loads(run("info", sets[1], "--json"))
    assert (found["images"], found["sites"], found["verified"]) == (20, ["east", "north"], False)
    assert sum(group["images"] for group in found["groups"]) == 20
    assert found["epsilon"] == {"epsilon": 1.6981, "delta": 1e-4, "unit": "patient", "adjacency": "add-remove"}
    assert found["publication"]["licence"] == "CC0-1.0"


def test_diff_counts_images_and_names_what_the_plan_changed(sets: tuple[Path, Path]) -> None:
    found = json.loads(run("diff", *sets, "--json"))
    # both draw their names from one stream, so that the first ten of a site are the same images
    assert found["removed"] == [
        {"site": "east", "method": "dp-sampling", "images": 2},
        {"site": "north", "method": "dp-sampling", "images": 2},
        {"site": "south", "method": "dp-sampling", "images": 12},
    ]
    assert (found["added"], found["relabelled"], found["redrawn"], found["kept"]) == ([], [], [], 20)
    changes = {one["key"]: (one["old"], one["new"]) for one in found["plan"]}
    assert changes["release.0.images"] == (12, 10) and changes["publication"][0] is None
    assert (found["sites_added"], found["sites_removed"], found["same"]) == ([], ["south"], False)
    said = run("diff", *sets)
    assert "images removed: 16" in said and "plan: release.0.images: 12 -> 10" in said and "UNVERIFIED" in said


def test_a_set_does_not_differ_from_itself(sets: tuple[Path, Path]) -> None:
    assert difference(sets[0], sets[0]).same and difference(sets[0], sets[0]).kept == 36


def test_a_label_or_pixels_that_changed_are_told_apart(
    sets: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No site signs a set like that: the entries of the second are changed as they are read."""
    other = shutil.copytree(sets[0], tmp_path / "other")
    read = PublishedFolder.entries

    def entries(self: PublishedFolder) -> Iterator[ImageEntry]:
        found = list(read(self))
        if self.folder == other:
            label = "normal" if found[0].label == "abnormal" else "abnormal"
            found[0] = found[0].model_copy(update={"label": label})
            found[1] = found[1].model_copy(update={"pixel_sha256": "0" * 64})
        return iter(found)

    monkeypatch.setattr(PublishedFolder, "entries", entries)
    found = difference(sets[0], other)
    site = next(entries(open_folder(other))).site
    assert found.relabelled == found.redrawn == {(site, "dp-sampling"): 1}
    assert (found.added, found.removed, found.kept, found.same) == ({}, {}, 34, False)


def test_card_writes_outside_the_set_alone(sets: tuple[Path, Path], tmp_path: Path) -> None:
    said = run("card", sets[0], "--out", tmp_path / "cards")
    assert "README.md" in said and "UNVERIFIED" in said
    assert json.loads(run("card", sets[0], "--out", tmp_path / "cards", "--json"))["written"]
    assert (tmp_path / "cards" / "DATASHEET.md").read_bytes() == (sets[0] / "DATASHEET.md").read_bytes()
    assert not (tmp_path / "cards" / "statement.intoto.json").exists()
