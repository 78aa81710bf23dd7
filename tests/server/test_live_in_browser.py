"""The live page in a real browser: a phone's width and a desk's, dark and light, and when nobody writes it any more."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
from PIL import Image
from support import browser
from support.plans import dp_sgd

from sfumato_common.files import write_json
from sfumato_common.locks import exclusive
from sfumato_common.pictures import GAP_GREY
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.publish.manifest import REPORT
from sfumato_server.status import sheets as room
from sfumato_server.status.board import StatusBoard
from sfumato_server.status.contacts import Contacts
from sfumato_server.status.live import write_page
from sfumato_server.status.overview import PAGE
from sfumato_server.status.phase import keep_phase
from sfumato_server.status.sheets import CHANGE_GAIN, FOLDER, RoundSheets

if not browser.is_there():
    pytest.skip("Chromium and chromedriver are not installed", allow_module_level=True)

SIZE = 24


@pytest.fixture(scope="module")
def home(founded, tmp_path_factory):
    """A home whose plan has three rounds of a GAN."""
    root = founded.copied(tmp_path_factory.mktemp("live") / "home").home
    value = founded.plan.model_dump(mode="json")
    gan = dp_sgd(kind="gan", rounds=3, width=8, generator_steps=2, fakes=8)
    value |= {"privacy": {"epsilon": 500.0, "delta": 1e-4}, "stages": [*value["stages"], gan]}
    write_json(root / "plan.json", parse(value, Plan, "plan").model_dump(mode="json"))
    return CoordinatorHome(root)


@pytest.fixture(scope="module")
def opened(home, tmp_path_factory):
    """A browser; the home is in its third round, with sheets of two."""
    board, contacts = StatusBoard(home.status_file, home.plan()), Contacts(home.contacts_file)
    draw_rounds(RoundSheets(home.root, home.plan()))
    board.finish_round("spectral", 1)
    board.finish_round("gan", 2)
    board.begin("gan", 3, 3)
    for site in home.plan().sites:
        board.site(site, "working")
        contacts.heard(site, None)
    contacts.write()
    profile = tmp_path_factory.mktemp("profile")
    with exclusive(home.root, "it"), keep_phase(home.root), browser.chromium(profile) as page:
        write_page(home.root, home.plan())
        yield page


def draw_rounds(sheets):
    """Sheets of two rounds, whose images differ by 5 grey levels in the lower half."""
    drawn = np.full((4, SIZE, SIZE), 100, np.uint8)
    later = drawn.copy()
    later[:, SIZE // 2 :] += 5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "components_shown", lambda plan: [0, 1])
        patch.setattr(room, "_columns", lambda plan, rows: 2)
        patch.setattr(room.RoundSheets, "_spectral_figures", lambda *_: (drawn[::2].astype(float), 1.0, 0.0))
        for number, images in ((1, drawn), (2, later)):
            patch.setattr(room, "draw_components", lambda *_, images=images: images)
            assert sheets.draw("gan", number, {}) is not None


def test_a_change_is_drawn_about_grey_and_told_in_grey_levels(home, opened):
    first, second = RoundSheets(home.root, home.plan()).sheets
    assert (first.change, first.moved) == ("", None)
    assert second.moved == round((25 / 2) ** 0.5, 2), "of the tiles alone, not of the gaps between them"
    with Image.open(home.root / FOLDER / second.change) as picture:
        assert set(np.unique(np.asarray(picture))) == {GAP_GREY, GAP_GREY + 5 * CHANGE_GAIN}


@pytest.mark.parametrize(("width", "dark"), [(390, True), (390, False), (1280, True), (1280, False)])
def test_it_fits_and_can_be_read(home, opened, tmp_path, width, dark):
    opened.open(home.root / PAGE, width, 800, dark)
    assert opened.run(browser.OVERFLOWING) == [0, []]
    faint = {place: ratio for place, ratio in opened.run(browser.CONTRASTS).items() if ratio < 4.5}
    assert not faint
    opened.photograph(tmp_path / "live.png")
    assert (tmp_path / "live.png").stat().st_size > 10_000
    own = ((home.root / FOLDER).resolve().as_uri(), (home.root / PAGE).resolve().as_uri())
    assert all(asked.startswith(own) for asked in opened.requests())


def test_a_phone_shows_the_epsilon_of_every_site(home, opened):
    opened.open(home.root / PAGE, 390, 800, dark=False)
    cells = opened.run("""return [...document.querySelectorAll('td[data-name^=epsilon]')].map(one => {
      const box = one.getBoundingClientRect();
      return [box.width > 0 && box.left >= 0 && box.right <= innerWidth, getComputedStyle(one, '::before').content];
    })""")
    assert cells == [[True, '"epsilon, at most"']] * len(home.plan().sites)


def test_the_way_the_bar_and_the_time_left_are_there(home, opened):
    opened.open(home.root / PAGE, 1280, 800, dark=False)
    way = opened.run("return [...document.querySelectorAll('.way li')].map(one => [one.textContent, one.className])")
    assert way[2] == ["gan 2/3", "now"]
    assert [state for _, state in way] == ["done", "done", "now", "to-come", "to-come"]
    assert opened.run("return document.querySelector('progress').value") == pytest.approx(4 / 7)
    assert "left" in opened.run("return document.querySelector('.bar').textContent")


def test_a_page_that_nobody_writes_says_so_and_how_old_it_is(home, opened, tmp_path):
    page = home.root / PAGE
    opened.open(page, 1280, 800, dark=False)
    assert re.fullmatch(r", \d+ s ago", opened.run("return document.getElementById('age').textContent"))
    old = tmp_path / "old.html"
    old.write_text(re.sub(r'data-at="[0-9.]+"', f'data-at="{time.time() - 150}"', page.read_text()))
    opened.open(old, 1280, 800, dark=True)
    assert re.fullmatch(r", [23] min ago", opened.run("return document.getElementById('age').textContent"))
    said = opened.run("const one = document.getElementById('gone'); return [one.hidden, one.textContent]")
    assert said[0] is False and "no longer written" in said[1]
    faint = {place: ratio for place, ratio in opened.run(browser.CONTRASTS).items() if ratio < 4.5}
    assert not faint
    old.write_text(old.read_text().replace('data-going="yes"', 'data-going="no"'))
    opened.open(old, 1280, 800, dark=False)
    assert opened.run("return document.getElementById('gone').hidden"), "a study that ended is not stale"


def test_no_script_but_its_own_runs(home, opened, tmp_path):
    strange = tmp_path / "strange.html"
    strange.write_text((home.root / PAGE).read_text().replace("</main>", "<script>window.strange = 1</script></main>"))
    opened.open(strange, 1280, 800, dark=False)
    told = "return [window.strange === undefined, document.getElementById('age').textContent !== '']"
    assert opened.run(told) == [True, True]


def test_a_published_study_links_its_report(home, opened):
    report = home.root.parent / "results of it" / "published" / REPORT
    report.parent.mkdir(parents=True)
    report.write_text("<h1>the report</h1>")
    with keep_phase(home.root) as phase:
        phase("published", report=report)
    write_page(home.root, home.plan())
    opened.open(home.root / PAGE, 1280, 800, dark=False)
    opened.click("a[href$='report.html']")
    opened.wait_for_text("the report")
