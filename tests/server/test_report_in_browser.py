"""The report in a real browser: at a phone's width and a desk's, light and dark, by keyboard, without a network.

Set SFUMATO_SCREENSHOTS to a folder to keep the pictures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import browser
from support.carded import published_set

if not browser.is_there():
    pytest.skip("chromium and chromedriver are not installed", allow_module_level=True)

SCREENS = [(width, dark) for width in (390, 1280) for dark in (False, True)]
TAB, RIGHT, SPACE = "\ue004", "\ue014", " "


@pytest.fixture(scope="module")
def report(founded: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published_set(founded, tmp_path_factory.mktemp("report")) / "report.html"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    with browser.chromium(tmp_path_factory.mktemp("profile")) as window:
        yield window


@pytest.mark.parametrize(("width", "dark"), SCREENS)
def test_every_screen_is_readable_and_whole(
    report: Path, page: browser.Page, width: int, dark: bool, tmp_path: Path
) -> None:
    page.requests()
    page.open(report, width, 900, dark)
    folder = Path(os.environ.get("SFUMATO_SCREENSHOTS", tmp_path))
    page.photograph(folder / f"report-{width}-{'dark' if dark else 'light'}.png")
    assert page.run("return matchMedia('(prefers-color-scheme: dark)').matches") is dark
    assert page.run(browser.OVERFLOWING) == [0, []]
    faint = {what: ratio for what, ratio in page.run(browser.CONTRASTS).items() if ratio < 4.5}
    assert faint == {}
    asked = page.requests()
    assert report.resolve().as_uri() in asked and {url.partition(":")[0] for url in asked} <= {"file", "data"}
    assert page.run("return [...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_whoever_has_only_a_keyboard_gets_everywhere(report: Path, page: browser.Page) -> None:
    page.open(report, 1280, 900, dark=False)
    focused = "const one = document.activeElement; return one.className || one.name || one.tagName"
    visited = []
    for _ in range(14):
        page.press(TAB)
        visited.append(page.run(focused))
        assert page.shows_focus()
    assert visited[0] == "skip" and {"zoom", "sheet"} <= set(visited)


def test_pictures_stand_at_their_own_size_and_grow_by_keyboard(report: Path, page: browser.Page) -> None:
    page.open(report, 390, 900, dark=False)
    sides = "one.naturalWidth, one.clientWidth, one.clientHeight, one.naturalHeight"
    size = f"const one = document.querySelector('.sheet img'); return [{sides}]"
    natural, width, height, tall = page.run(size)
    assert (natural, tall) == (width, height)
    page.run("document.querySelector('input[name=zoom]').focus()")
    page.press(RIGHT)
    assert page.run(size)[1] == 2 * natural
    page.press(RIGHT)
    assert page.run(size)[1] == 4 * natural
    # at four times it is wider than a phone: its box scrolls, the page does not
    assert page.run(browser.OVERFLOWING) == [0, []]


def test_what_covers_and_what_does_not_comes_before_any_figure(report: Path, page: browser.Page) -> None:
    page.open(report, 1280, 900, dark=False)
    order = page.run("return [...document.querySelectorAll('h2')].map(one => one.id)")
    assert (
        order.index("limits")
        < order.index("chart")
        < order.index("pictures")
        < order.index("cost")
        < order.index("use")
    )
    first = page.run("return document.querySelector('svg, img').tagName")
    assert first == "svg"
    words = page.run("return document.querySelector('svg desc').textContent")
    assert "the whole set 0.910 (0.870 to 0.940)" in words and "Real images were not measured" in words
