"""The dossier in a real browser: at a phone's width and a desk's, light and dark, without a network."""

from __future__ import annotations

import pytest
from support import browser
from support.published import plan_of, published_set

from sfumato_common.evidence.dossier import make_dossier
from sfumato_common.evidence.page import write_dossier
from sfumato_common.files import write_json
from sfumato_server.coordinator.dossier import coordinator_facts
from sfumato_server.coordinator.home import CoordinatorHome

if not browser.is_there():
    pytest.skip("Chromium and chromedriver are not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("dossier")
    folder = published_set(root)
    home = CoordinatorHome(root / "coordinator")
    write_json(home.plan_file, plan_of(6, {"size": 16}).model_dump(mode="json"))
    write_dossier(make_dossier(coordinator_facts(home, folder)), root / "out")
    with browser.chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened, root / "out" / "dossier.html"


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_it_fits_and_can_be_read(page, width, dark):
    opened, path = page
    opened.open(path, width, 800, dark)
    assert opened.run(browser.OVERFLOWING) == [0, []]
    faint = {place: ratio for place, ratio in opened.run(browser.CONTRASTS).items() if ratio < 4.5}
    assert not faint
    assert {asked.split("#")[0] for asked in opened.requests()} <= {path.resolve().as_uri()}


def test_every_link_leads_somewhere_and_a_status_is_a_word(page):
    opened, path = page
    opened.open(path, 1280, 800, False)
    lost = "return [...document.querySelectorAll('a[href]')].filter(a => !document.querySelector(a.hash)).length"
    assert opened.run(lost) == 0
    words = opened.run("return [...new Set([...document.querySelectorAll('.status')].map(one => one.textContent))]")
    assert set(words) <= {"NOT SHOWN", "partly", "shown"}
