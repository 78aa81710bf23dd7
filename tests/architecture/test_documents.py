"""The documents: one page to begin with, links that lead somewhere, and the rooms as they stand."""

import re
import tomllib
from pathlib import Path

import pytest

from sfumato_common import errors
from sfumato_common.command_line import INTERRUPTED
from sfumato_common.errors import SfumatoError

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = sorted((ROOT / "docs" / "reference").glob("*.md"))
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "configs" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
# what only few need of the two guides
APART = [
    ROOT / "docs" / f"{name}.md"
    for name in (
        *("choosing", "dossier", "gate", "images", "lifecycle", "pacs"),
        *("publishing", "secure-sums", "special-cases", "starts", "versions"),
    )
]


def anchors(page):
    """The names that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_one_page_and_leads_to_every_other():
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 600
    others = [page for page in PAGES[1:] if page not in APART]  # to which the two guides lead
    assert not [page.name for page in others if f"]({page.relative_to(ROOT)})" not in text]


@pytest.mark.parametrize("page", [*PAGES, *REFERENCE], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith("https://"):
            name, _, anchor = target.partition("#")
            file = page.parent / name if name else page
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_lines_of_prose_are_short(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert not [line for line in prose.splitlines() if len(line) > 160 and not line.startswith("|")]


@pytest.mark.parametrize("name", ["coordinator", "hospital"])
def test_a_guide_can_be_read_in_its_hour_and_leads_to_what_was_taken_out(name):
    page = ROOT / "docs" / f"{name}.md"
    text = page.read_text()
    assert len(text.split()) < 200 * 30  # half an hour of reading, half an hour of the machine
    apart = text.split("## On pages of their own")[1].split("\n## ")[0]
    led = re.findall(r"^\|(.*)\| \[[^\]]+\]\(([a-z-]+\.md)\) \|$", apart, flags=re.MULTILINE)
    assert len(led) >= 5
    for row, target in led:  # an anchor of the guide that became one of a page: old links go on working
        known = anchors(page.parent / target)
        assert set(re.findall(r'<a id="([^"]+)"></a>', row)) <= known


def test_every_page_apart_is_named_by_a_guide():
    named = "".join((ROOT / "docs" / f"{name}.md").read_text() for name in ("coordinator", "hospital"))
    assert all(f"]({page.name})" in named for page in APART)


def test_every_exit_code_stands_in_one_table_with_what_to_do_and_its_words():
    text = (ROOT / "docs" / "reliability.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.+) \| (.+) \|(.*)\|$", text, flags=re.MULTILINE)
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SfumatoError)]
    words = {0: set(), INTERRUPTED: set()}
    for kind in classes:
        words.setdefault(kind.exit_code, set()).add(kind.wire_code)
    assert {int(code): set(re.findall(r"`([a-z-]+)`", said)) for code, _, _, said in rows} == words
    assert all(len(meaning) > 3 and len(remedy) > 6 for _, meaning, remedy, _ in rows)
    for page in ("hospital", "coordinator"):
        assert "reliability.md#exit-codes" in (ROOT / "docs" / f"{page}.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tests_that_a_page_names_are_there(page):
    named = set(re.findall(r"`(tests/[\w/]+(?:\.py|/)?)", page.read_text()))
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_architecture_page_has_the_floors_that_the_linter_holds():
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", text, flags=re.MULTILINE)
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    floors = [floor for contract in contracts if contract.get("exhaustive") for floor in contract["layers"]]
    said = [set(re.findall(r"\w+", row)) for row in rows]
    assert said == [set(floor.split(" | ")) for floor in floors]
