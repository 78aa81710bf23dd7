"""The guides' first hours as a new user would walk them: copied line by line, in clean folders, with real processes."""

import json
import sys

import pytest
from support.walk import DOCS, blocks, walk

from sfumato_server.publish import verify_dataset

GUIDES = ("coordinator.md", "hospital.md", "researcher.md")


@pytest.mark.parametrize("page", GUIDES)
def test_a_first_hour_needs_no_file_of_the_checkout_and_no_answer(page):
    commands = "".join(text for _, text in blocks(page))
    assert len(blocks(page)) >= 3
    assert "configs/" not in commands
    assert "demo" not in commands
    # nobody is there to answer
    for line in commands.splitlines():
        assert not line.startswith("sfumato-site accept") or "--yes" in line
        assert not line.startswith("sfumato coordinator enrol") or ("--fingerprint" in line and "passphrase" in line)


def test_what_is_said_to_be_another_terminal_is_one():
    titled = [(page, text) for page in GUIDES for title, text in blocks(page) if title]
    assert {text for page, text in titled if page == "coordinator.md"} == {
        "sfumato-site run --home alder\n",
        "sfumato-site run --home birch\n",
    }
    text = "".join((DOCS / page).read_text() for page in GUIDES)
    assert text.count("```sh title=") == len(titled) == 3


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Sfumato's sites run on Linux")
@pytest.mark.timeout(3600)
def test_coordinator_and_researcher(tmp_path):
    walk("coordinator.md", tmp_path / "practice")
    published = tmp_path / "practice" / "results" / "published"
    assert verify_dataset(published, None).private
    walk("researcher.md", tmp_path / "practice")
    figures = json.loads((tmp_path / "practice" / "evaluation.json").read_text())["figures"]
    assert {figure["figure"] for figure in figures} == {"tstr", "methods"}
    assert (tmp_path / "practice" / "overview.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Sfumato's sites run on Linux")
@pytest.mark.timeout(3600)
def test_hospital(tmp_path):
    walk("hospital.md", tmp_path / "hospital")
    home = tmp_path / "hospital" / "site"
    assert not (home / "check-sheet.png").exists()  # as the guide says: the ingest removes it
    assert json.loads((tmp_path / "hospital" / "ledger.json").read_text())
    assert list(home.glob("releases/*/formal.sfumato"))
