"""A real Chromium by W3C WebDriver: pages of the disk or of loopback are opened, measured, photographed, typed into."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

# what a container with a scroll bar of its own hides is not the page's overflow
OVERFLOWING = """
const wide = [];
for (const one of document.querySelectorAll('body *')) {
  if (one.closest('.skip') || one.parentElement.closest('.wide, .sheet, svg')) continue;
  const box = one.getBoundingClientRect();
  if (box.width && box.right > document.documentElement.clientWidth + 0.5) wide.push(one.tagName + '.' + one.className);
}
return [document.documentElement.scrollWidth - document.documentElement.clientWidth, wide];
"""
# contrast of every piece of text with what is behind it (WCAG 2.2, success criterion 1.4.3)
CONTRASTS = """
const parse = text => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => [r, g, b].map(v => linear(v / 255))
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const found = {};
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const one = walk.currentNode.parentElement;
  if (!walk.currentNode.data.trim() || !one.getClientRects().length || one.closest('title, desc, .skip')) continue;
  const style = getComputedStyle(one), drawn = one.closest('svg');
  let behind = one, ground = [0, 0, 0, 0];
  if (drawn && !one.classList.contains('out')) ground = parse(style.stroke);
  for (; ground[3] === 0 && behind; behind = behind.parentElement) {
    ground = parse(getComputedStyle(behind).backgroundColor);
  }
  const ink = parse(drawn ? style.fill : style.color);
  const pair = [light(ink), light(ground)].sort((a, b) => b - a);
  const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
  const key = one.tagName + '.' + (one.getAttribute('class') || '');
  found[key] = Math.min(found[key] || 99, ratio);
}
return found;
"""


def is_there() -> bool:
    """Whether Chromium and its driver are installed."""
    return bool(shutil.which("chromedriver") and (shutil.which("chromium") or shutil.which("chromium-browser")))


@dataclass
class Page:
    """One window."""

    client: httpx.Client
    session: str

    def open(self, target: Path | str, width: int, height: int, dark: bool) -> None:
        """Show a file, or a URL, in a window of `width` x `height` CSS pixels, in the dark scheme or the light one."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._devtools("Emulation.setDeviceMetricsOverride", screen)
        scheme = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
        self._devtools("Emulation.setEmulatedMedia", scheme)
        self._post("url", {"url": target if isinstance(target, str) else target.resolve().as_uri()})
        self._take_focus()

    def _take_focus(self) -> None:
        """Wait until keys reach the page: on a busy machine a window may have no focus, and they go nowhere."""
        until = time.monotonic() + 30.0
        while not self.run("return document.hasFocus()"):
            assert time.monotonic() < until, "the window never had the focus"
            self._devtools("Page.bringToFront", {})
            self._devtools("Emulation.setFocusEmulationEnabled", {"enabled": True})

    def run(self, script: str) -> Any:
        """What a script returns."""
        return self._post("execute/sync", {"script": script, "args": []})

    def click(self, selector: str) -> None:
        """Click what a CSS selector finds first, where a person could."""
        self._post(f"element/{self._find(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        """Type into it."""
        self._post(f"element/{self._find(selector)}/value", {"text": text})

    def _find(self, selector: str) -> str:
        return str(next(iter(self._post("element", {"using": "css selector", "value": selector}).values())))

    def wait_for_text(self, words: str, seconds: float = 60.0) -> None:
        """Wait until the page says `words`: a key that sends a form does not wait for the page that answers."""
        end = time.monotonic() + seconds
        while words not in self.run("return document.body ? document.body.textContent : ''"):
            assert time.monotonic() < end, f"the page never said '{words}'"
            time.sleep(0.1)

    def press(self, key: str) -> None:
        """One key of the keyboard: a letter of WebDriver's own (U+E000 and on), or text."""
        strokes = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self._post("actions", {"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]})

    def shows_focus(self) -> bool:
        """Whether what has the focus has a ring around it; a busy machine draws it a moment after the key."""
        style, until = "none", time.monotonic() + 5.0
        while style == "none" and time.monotonic() < until:
            style = self.run("return getComputedStyle(document.activeElement).outlineStyle")
        return bool(style != "none")

    def photograph(self, target: Path) -> None:
        """The whole page as PNG."""
        # a window that was just told its size says 0 for a moment, and a picture of nothing is an error
        wide, high = self.run("return [document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": wide, "height": high, "scale": 1}
        values = {"format": "png", "captureBeyondViewport": True, "clip": clip}
        shot = self._devtools("Page.captureScreenshot", values)
        target.write_bytes(base64.b64decode(shot["data"]))

    def requests(self) -> list[str]:
        """URLs that pages of the disk or of loopback asked for since the last call; the browser's own do not count."""
        lines = (json.loads(line["message"])["message"] for line in self._post("se/log", {"type": "performance"}))
        asked = [line["params"] for line in lines if line["method"] == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in asked if one["documentURL"].startswith(("file:", "http://127.0.0.1:"))]

    def _devtools(self, command: str, values: dict[str, Any]) -> Any:
        return self._post("goog/cdp/execute", {"cmd": command, "params": values})

    def _post(self, what: str, values: dict[str, Any]) -> Any:
        answer = self.client.post(f"/session/{self.session}/{what}", json=values).json()["value"]
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer


@contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """A window of its own profile in `folder`, which ends with the block."""
    log = folder / "driver.log"
    driver = subprocess.Popen(
        ["chromedriver", "--port=0", "--verbose", f"--log-path={log}"], stdout=subprocess.PIPE, text=True
    )
    watch = threading.Timer(240, driver.kill)
    watch.start()
    try:
        assert driver.stdout is not None
        port = next(
            int(found[1]) for line in driver.stdout if (found := re.search(r"successfully on port (\d+)", line))
        )
        threading.Thread(target=driver.stdout.read, daemon=True).start()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False) as client:
            page = Page(client, _session(client, folder, log))
            try:
                yield page
            finally:
                client.delete(f"/session/{page.session}")
    finally:
        watch.cancel()
        driver.terminate()
        driver.wait(10)


def _session(client: httpx.Client, folder: Path, log: Path) -> str:
    """A new window's session: on a busy machine Chromium may miss the time that its driver gives it to start."""
    answer: dict[str, Any] = {}
    for tried in range(3):
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        options = {"args": [*arguments, f"--user-data-dir={folder / str(tried)}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"performance": "ALL"}}
        answer = client.post("/session", json={"capabilities": {"alwaysMatch": wanted}}).json()["value"]
        if "sessionId" in answer:
            return str(answer["sessionId"])
    said = [line for line in log.read_text(errors="replace").splitlines() if "ERROR" in line or "FATAL" in line]
    raise AssertionError([answer["message"], *said[-20:]])
