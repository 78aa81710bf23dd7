"""docs/guarantee.md has the figures that `make bench NAME=guarantee` prints, and no others in their place."""

from pathlib import Path

from guarantee import tables


def test_the_page_has_the_figures_that_the_accountant_computes():
    page = (Path(__file__).resolve().parents[2] / "docs" / "guarantee.md").read_text()
    assert tables() in page
