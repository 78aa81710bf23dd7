"""Stores that an earlier version wrote: those of format 3 are read and updated, those of 1 and 2 say what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from support.commands import Say, speaker
from support.hospital import make_hospital
from support.old_store import make_old
from support.studies import PLAN, POLICY

from sfumato_client.dataset.content import Content
from sfumato_client.site.home import SiteHome
from sfumato_common.crypto.identity import create_identity
from sfumato_common.strict import parse
from sfumato_common.study.load import plan_text
from sfumato_common.study.plan import Plan

VALUES = {**PLAN, "stages": PLAN["stages"][:1], "release": [{"model": "spectral", "images": 4}]}
STUDY = parse(VALUES, Plan, "plan")


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    return speaker(monkeypatch, capsys)


@pytest.fixture
def home(tmp_path: Path, say: Say) -> SiteHome:
    """Twelve pictures of six patients in a store of format 3, and their source beside it."""
    made = SiteHome(tmp_path / "alder")
    create_identity(made.identity, "alder")
    (made.identity / "split.key").write_text(bytes(range(32)).hex())
    (made.root / "policy.yaml").write_text(yaml.safe_dump({"site": "alder", **POLICY}))
    (tmp_path / "plan.yaml").write_text(plan_text(STUDY))
    write(tmp_path, 12)
    assert say("sfumato-site", *ingest(made))[0] == 0
    make_old(made.store, made.store_key())
    return made


def write(folder: Path, count: int) -> None:
    """So many pictures, their table and their source."""
    (folder / "images").mkdir(exist_ok=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 24)).astype(np.uint8)
        if not (path := folder / "images" / f"{number}.png").exists():
            Image.fromarray(pixels).save(path)
    rows = [f"{number}.png,P{number // 2},{('normal', 'opacity')[number % 2]}" for number in range(count)]
    (folder / "images" / "labels.csv").write_text("\n".join(["file,patient_id,label", *rows]) + "\n")
    place = {"folder": str(folder / "images"), "labels": str(folder / "images" / "labels.csv")}
    (folder / "source.yaml").write_text(yaml.safe_dump({"kind": "png", "text": "allow", **place}))


def ingest(home: SiteHome, *more: str) -> tuple[str, ...]:
    place = home.root.parent
    words = ("ingest", "--home", home.root, "--plan", place / "plan.yaml", "--workers", "1", *more)
    return (*map(str, words), str(place / "source.yaml"))


def contents(home: SiteHome) -> set[tuple[str, bytes, int]]:
    """Every image: its split, pixels and label."""
    store, found = home.open_store(), set[tuple[str, bytes, int]]()
    for split in ("train", "holdout"):
        pixels, labels, _ = store.cohort(split).everything()
        found |= {(split, one.tobytes(), int(label)) for one, label in zip(pixels, labels, strict=True)}
    return found


def test_a_store_of_format_3_opens_with_the_same_images_and_patients(home: SiteHome) -> None:
    assert json.loads((home.store / "store.json").read_text())["format"] == 3
    assert len(contents(home)) == 12
    members = home.open_store().members("train", "holdout")
    assert len(members.train | members.holdout) == home.open_store().patients == 6


def test_check_reads_it(home: SiteHome, say: Say) -> None:
    code, line, said = say("sfumato-site", "check", "--home", home.root, "--plan", home.root.parent / "plan.yaml")
    # wrong are the noise of tests and six patients, and nothing of the store
    assert (code, line.partition(";")[0]) == (2, "error: 2 things are wrong")
    assert "the store holds images of 6 patients" in said
    assert "the store that stands is whole and made for this plan" in said


def test_an_ingest_beside_it_says_what_to_do(home: SiteHome, say: Say) -> None:
    code, line, _ = say("sfumato-site", *ingest(home))
    assert code
    assert "--update" in line


def test_an_update_reads_what_is_new_and_makes_it_a_store_of_today(home: SiteHome, say: Say) -> None:
    before = contents(home)
    write(home.root.parent, 14)
    code, line, said = say("sfumato-site", *ingest(home, "--update"))
    assert (code, line) == (0, "")
    assert "kept 14 images of 7 patients" in said
    assert contents(home) > before
    assert json.loads((home.store / "store.json").read_text())["format"] == 4


def test_the_same_images_ingested_today_are_the_same_cohort(home: SiteHome, say: Say) -> None:
    """A study that began with it goes on after its disk was lost; and not with an image less."""

    def digest() -> str:
        return Content(home.store, home.store_key(), home.split_key()).digest()

    before = digest()
    for count, same in ((12, True), (11, False)):
        shutil.rmtree(home.store)
        write(home.root.parent, count)
        assert say("sfumato-site", *ingest(home))[0] == 0
        assert (digest() == before) is same


def test_a_round_is_answered_from_it(tmp_path: Path) -> None:
    hospital = make_hospital(tmp_path / "birch", plan_values={**VALUES, "sites": {"alder": {"nominal_patients": 40}},
                             "federation": {**PLAN["federation"], "quorum": 1}})  # fmt: skip
    make_old(hospital.home.store, hospital.home.store_key())
    reply = hospital.ask(hospital.request(stage="spectral", number=1))
    assert reply.status == "ok", hospital.reason(reply)
    assert hospital.charges()


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("words", [(), ("--update",)])
def test_a_store_that_was_not_encrypted_says_what_to_do(home: SiteHome, say: Say, number: int, words: tuple) -> None:
    value = json.loads((home.store / "store.json").read_text())
    (home.store / "store.json").write_text(json.dumps({**value, "format": number}))
    code, line, _ = say("sfumato-site", *ingest(home, *words))
    assert code
    assert "remove the folder and ingest again" in line or (not words and "already stands" in line)
    said = "".join(map(str, say("sfumato-site", "check", "--home", home.root)))
    assert "remove the folder and ingest again" in said
