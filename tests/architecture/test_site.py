"""The documents as a site: whole under --strict, from no other host, and a reference that is the code's own."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# what a browser fetches by itself; links that a person follows may lead anywhere
FETCHED = re.compile(
    r"<(?:script|img|iframe|source)[^>]+src=\"?(?:https?:)?//"
    r"|<link[^>]+href=\"?(?:https?:)?//[^>]+>"
    r"|@import|url\((?:https?:)?//"
)


@pytest.fixture(scope="module")
def reference():
    described = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_has_every_page(site):
    sources = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert {path.relative_to(site) for path in site.rglob("*.html")} >= sources | {Path("index.html")}


def test_the_site_fetches_nothing_from_another_host(site):
    found = {path.name: FETCHED.findall(path.read_text()) for path in site.rglob("*.html")}
    assert len(found) > 15
    assert not {name: links for name, links in found.items() if links}
    assert not [path for path in site.rglob("*.css") if FETCHED.search(path.read_text())]


def test_the_site_holds_no_file_that_is_no_document(site):
    kinds = {path.suffix for path in site.rglob("*") if path.is_file() and "assets" not in path.parts}
    assert kinds <= {".html", ".png", ".xml", ".gz", ".json", ".js", ".yml", ".yaml", ".ipynb"}


@pytest.mark.parametrize("page", ["commands-coordinator", "commands-site", "plan", "policy", "source"])
def test_the_reference_is_what_the_code_says(reference, page):
    text = reference.pages()[f"{page}.md"].rstrip() + "\n"
    assert (ROOT / "docs" / "reference" / f"{page}.md").read_text() == text, "run 'make reference'"


def test_the_reference_has_no_page_beside():
    assert len(list((ROOT / "docs" / "reference").iterdir())) == 5


def test_a_key_without_a_description_ends_the_program(reference):
    part = {"properties": {"size": {"type": "integer", "description": "Pixels a side."}, "bits": {"type": "integer"}}}
    with pytest.raises(AssertionError, match="bits"):
        reference._table("form", part, {"$defs": {}})
