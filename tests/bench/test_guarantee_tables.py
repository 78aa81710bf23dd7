"""docs/guarantee.md has the figures that `make bench NAME=guarantee` prints, and no others in their place."""

import re
from pathlib import Path

import pytest
from guarantee import tables
from scipy.stats import norm

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "guarantee.md").read_text()


def test_the_page_has_the_figures_that_the_accountant_computes():
    assert tables() in PAGE


def test_the_private_gates_measured_shares_are_those_of_the_normal_law():
    """An honest set is refused once in 100 times; so many copied patients move the noised count by as many."""
    said = re.search(r"is, at z = (4), (.*?); at z = (10), (.*?)\.\n", PAGE, re.DOTALL)
    assert said is not None
    for noise, shares, count in ((4.0, said[2], 5), (10.0, said[4], 3)):
        figures = re.findall(r"(\.\d+) with(out a copy| one| \d+)", shares)
        assert len(figures) == count
        for share, copies in figures:
            copied = 0 if "copy" in copies else int(copies.replace("one", "1"))
            assert float(share) == pytest.approx(norm.sf(norm.isf(0.01) - copied / noise), abs=0.01)
