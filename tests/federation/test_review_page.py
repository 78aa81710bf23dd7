"""The stewards' page in a real browser and against attackers of the same machine.

Set SFUMATO_SCREENSHOTS to a folder to keep the pictures.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from support import browser
from support.reviewed import PASSPHRASES
from typer.testing import CliRunner

from sfumato_client.audit.verdict import report_path
from sfumato_client.cli.main import app
from sfumato_client.review.serve import serve
from sfumato_client.site.desk import queue
from sfumato_common.errors import BusyError

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
in_chromium = pytest.mark.skipif(not browser.is_there(), reason="chromium and chromedriver are not installed")
TAB, ENTER, SPACE, DOWN = "\ue004", "\ue007", " ", "\ue015"
ATTACK = {
    "name": "nearest copy", "question": "does an image of a training patient lie nearer than those of strangers?",
    "of": "k-same (gan)", "auc": 0.55, "auc_interval": [0.46, 0.64], "members": 32, "holdout": 8,
    "found_at": {"0.01": {"share": 0.03, "interval": [0.0, 0.16]}}, "underpowered": "an AUC under 0.71 is not told",
}  # fmt: skip


@pytest.fixture(scope="module")
def site(waiting, tmp_path_factory):
    found = waiting.copy(tmp_path_factory.mktemp("page") / "alder")
    found.hire("ada", "grace")
    return found


@pytest.fixture(scope="module")
def address(site):
    """The page as its command serves it: its address with the token."""
    program = str(Path(sys.executable).parent / "sfumato-site")
    command = [program, "review", "--home", str(site.home.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield next(line.strip() for line in process.stdout if line.startswith("http://"))
        finally:
            process.terminate()
            assert process.wait(20) is not None


@pytest.fixture(scope="module")
def client(address):
    with httpx.Client(base_url=address, trust_env=False, timeout=60) as found:
        yield found


@pytest.fixture(scope="module")
def where(site):
    return f"release/{site.plan.digest[:16]}"


def form(site, **changes):
    waits = next(entry for entry in queue(site.home.root) if entry.state == "waits")
    values = {"verdict": "approve", "steward": "ada", "passphrase": "wrong", "reason": "fine", "ground": "quality"}
    return {**values, "sets": " ".join(waits.sets), **changes}


def test_it_listens_on_loopback_alone_under_a_token_that_is_new(address):
    assert address.startswith("http://127.0.0.1:") and len(address.rstrip("/").rpartition("/")[2]) == 43
    port = int(address.split(":")[2].partition("/")[0])
    listening = Path("/proc/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in listening]
    mine = {row[1] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"}
    assert mine == {f"0100007F:{port:04X}"}


@pytest.mark.parametrize("path", ["", "queue", "style.css", "x" * 43 + "/", "../", "%2e%2e/"])
def test_without_the_token_there_is_nothing(client, address, path):
    root = address[: address.index("/", 8)]
    found = client.get(f"{root}/{path}")
    assert (found.status_code, found.text) == (404, "not here\n")


def test_another_name_of_the_machine_is_refused(client):
    """A page of a hostile site whose name was led to 127.0.0.1 (DNS rebinding), even if it knew the token."""
    for host in ("evil.example", "evil.example:80", "127.0.0.1", "0.0.0.0:80", "localhost.evil.example"):
        assert client.get("", headers={"host": host}).status_code == 404


def test_a_form_from_elsewhere_decides_nothing(site, client, address, where):
    origin = address[: address.index("/", 8)]
    told = form(site, passphrase=PASSPHRASES["ada"].decode())
    for headers in (
        {},
        {"origin": "null"},
        {"origin": "http://evil.example"},
        {"origin": origin.replace("127.0.0.1", "localhost")},
        {"origin": origin + "0"},
        {"origin": origin, "sec-fetch-site": "cross-site"},
        {"origin": origin, "content-type": "text/plain"},
    ):
        assert client.post(f"{where}/formal/decide", data=told, headers=headers).status_code == 404
    assert client.post(f"{where}/formal/decide", content=b"x" * 70_000, headers={"origin": origin}).status_code == 404
    assert client.get(f"{where}/formal/decide", params=told).status_code in (404, 405)
    assert {entry.state for entry in queue(site.home.root)} == {"waits", "later"}


def test_whoever_stole_the_address_still_cannot_decide(site, client, address, where):
    origin = {"origin": address[: address.index("/", 8)]}
    for told in (
        form(site),
        form(site, steward="../identity/signing", passphrase=PASSPHRASES["ada"].decode()),
        form(site, passphrase=PASSPHRASES["grace"].decode()),
        form(site, sets="0" * 64, passphrase=PASSPHRASES["ada"].decode()),
        form(site, verdict="", passphrase=PASSPHRASES["ada"].decode()),
    ):
        began = time.monotonic()
        found = client.post(f"{where}/formal/decide", data=told, headers=origin)
        assert found.status_code == 409 and "Not done" in found.text
        assert time.monotonic() - began >= 1.0
    assert {entry.state for entry in queue(site.home.root)} == {"waits", "later"}


def test_pages_are_kept_nowhere_and_run_nothing(client, where):
    for path in ("", f"{where}/formal", f"{where}/formal/0/0"):
        found = client.get(path)
        assert found.status_code == 200
        assert found.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in found.headers["content-security-policy"]
        assert "script" not in found.headers["content-security-policy"] and "<script" not in found.text
        assert found.headers["x-frame-options"] == "DENY"
        assert "set-cookie" not in found.headers and "server" not in found.headers


def test_who_decides_about_a_formal_part_is_shown_no_patient(client, where):
    page = client.get(f"{where}/formal/0/0").text
    assert "data:image" not in page and page.count("<img") == 1
    for path in (f"{where}/declared", f"{where}/declared/0/0"):
        found = client.get(path)
        assert found.status_code == 409 and "is looked at after the formal part" in found.text
    assert client.get(f"image/{where[8:]}/declared/0/0.png").status_code == 404
    assert "What was found" not in client.get(f"{where}/formal").text
    assert client.get(f"{where}/formal/0/12").status_code == 409
    assert client.get(f"{where}/formal?page=99").status_code == 200
    assert client.get("release/" + "0" * 16 + "/formal").status_code == 409


def files_of(home):
    """Every file of the home and when it was written; locks are taken by reading, too."""
    files = [path for path in home.root.rglob("*") if path.is_file() and ".lock" not in path.name]
    return {path: path.stat().st_mtime_ns for path in files}


@in_chromium
def test_a_steward_decides_in_a_browser(site, client, address, where, tmp_path_factory):
    """The whole way: the formal part by keyboard alone, then the declared one, beside patients, by mouse."""
    shots = Path(os.environ.get("SFUMATO_SCREENSHOTS", tmp_path_factory.mktemp("shots")))
    with browser.chromium(tmp_path_factory.mktemp("profile")) as page:
        page.requests()
        screens(page, address, {"queue": "", "formal": f"{where}/formal"}, shots)
        by_keyboard(page, address, where)
        page.wait_for_text("approved by ada")
        declared = next(entry for entry in queue(site.home.root) if entry.part == "declared")
        report = report_path(site.home.steward_folder, declared.sets)
        report.write_text(json.dumps({**json.loads(report.read_text()), "attacks": [ATTACK]}))
        before = files_of(site.home)
        screens(page, address, {"declared": f"{where}/declared", "candidate": f"{where}/declared/0/2"}, shots)
        assert page.run("return document.querySelectorAll('.real img').length") == 4
        natural = "return [...document.images].every(one => one.complete && one.naturalWidth > 0 && one.alt)"
        assert page.run(natural)
        assert files_of(site.home) == before, "what was looked at is in no file"
        assert {url[: len(address)] for url in page.requests() if not url.startswith("data:")} == {address}
        page.open(f"{address}{where}/declared", 1280, 800, dark=False)
        page.click("input[value=refuse]")
        page.run("document.querySelector('select[name=ground]').value = 'resemblance'")
        page.type("input[name=reason]", "the third resembles somebody")
        page.run("document.querySelector('select[name=steward]').value = 'grace'")
        page.type("input[name=passphrase]", PASSPHRASES["grace"].decode())
        page.click("button")
        page.wait_for_text("refused by a steward")
    words = {entry.part: (entry.state, entry.words.split(";")[0]) for entry in queue(site.home.root)}
    assert words == {"formal": ("decided", "approved by ada"), "declared": ("decided", "refused by a steward")}
    assert site.ask("make").status == "ok" and site.ask("send").status == "ok"
    assert len(site.uploads) == 1


def screens(page, address, paths, shots):
    """Every page at a phone's width and a desk's, the one light and the other dark: readable, and whole."""
    for name, path in paths.items():
        for width, dark in ((390, name in ("queue", "declared")), (1280, name in ("formal", "candidate"))):
            page.open(f"{address}{path}", width, 800, dark)
            page.photograph(shots / f"review-{name}-{width}-{'dark' if dark else 'light'}.png")
            assert page.run("return matchMedia('(prefers-color-scheme: dark)').matches") is dark
            assert page.run(browser.OVERFLOWING) == [0, []], (name, width)
            assert {what: ratio for what, ratio in page.run(browser.CONTRASTS).items() if ratio < 4.5} == {}


def by_keyboard(page, address, where):
    """Tab by tab from the top of the page to the signature."""
    page.open(f"{address}{where}/formal", 1280, 800, dark=False)
    focused = "const one = document.activeElement; return one.name || one.className || one.tagName"
    for _ in range(60):
        page.press(TAB)
        assert page.shows_focus()
        match page.run(focused):
            case "verdict":
                page.press(SPACE)
                assert page.run("return document.activeElement.value") == "approve"
            case "reason":
                for letter in "sharp":
                    page.press(letter)
            case "passphrase":
                for letter in PASSPHRASES["ada"].decode():
                    page.press(letter)
                page.press(ENTER)
                return
    raise AssertionError("the form is not reached")


def test_the_same_by_command(waiting, tmp_path):
    site = waiting.copy(tmp_path / "alder")
    home = ["--home", str(site.home.root)]
    for name, words in PASSPHRASES.items():
        (tmp_path / name).write_bytes(words + b"\n")

    def run(*words, code=0):
        done = CliRunner().invoke(app, [*words, *home])
        assert (getattr(done.exception, "exit_code", 0) if done.exception else 0) == code, done.exception
        return f"{done.output}{done.exception or ''}"

    def own(name):
        return ["--passphrase-file", str(tmp_path / name)]

    run("steward", "add", "ada", *own("ada"))
    assert "lets the next one in" in run("steward", "add", "grace", *own("grace"), code=3)
    run("steward", "add", "grace", "--by", "ada", "--by-passphrase-file", str(tmp_path / "ada"), *own("grace"))
    assert [each["by"] for each in json.loads(run("steward", "list", "--json"))["stewards"]] == ["", "ada"]
    shown = json.loads(run("queue", "--json"))["releases"]
    assert [(each["name"], each["state"]) for each in shown] == [("tiny/formal", "waits"), ("tiny/declared", "later")]
    assert "formal waits for a steward, declared is looked at after the formal part" in run("status", "--once")
    said = ["approve", "tiny", "--steward", "ada", "--reason", "fine"]
    assert "say that you looked" in run(*said, *own("ada"), code=2)
    assert "waits for a steward" in run("queue"), "nothing was approved that nobody looked at"
    assert "does not open" in run(*said, "--looked", *own("grace"), code=2)
    assert "approved by ada" in run(*said, "--looked", *own("ada"))
    refused = ["refuse", "tiny/declared", "--steward", "grace", "--ground", "quality", "--reason", "blurred"]
    assert "refused by a steward" in run(*refused, *own("grace"))
    assert "approve: fine" in run("queue") and "refuse (quality): blurred" in run("queue")


def test_a_port_that_is_taken_is_said_to_be(site, address):
    with pytest.raises(BusyError, match="port"):
        serve(site.home.root, int(address.split(":")[2].partition("/")[0]), print)
