"""How far long work is: nothing of short work where there is no terminal, and a line now and then of long work."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from sfumato_common import progress
from sfumato_common.progress import busy, images_shown, shown


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress._lines, "__defaults__", (lambda: now[0],))
    return now


def test_short_work_says_nothing_and_long_work_a_line_each_half_minute(clock, capsys):
    with shown("reading") as tell, busy("accounting"):
        for done in range(1, 101):
            clock[0] += 0.9
            tell(done, 100)
    captured = capsys.readouterr()
    assert captured.out == "", "standard output is for results"
    assert captured.err.splitlines() == [
        "reading: 34 of 100, about 59 s left",
        "reading: 68 of 100, about 29 s left",
    ]
    with shown("reading") as tell:
        clock[0] += 29.0
        tell(50, 100)
    assert capsys.readouterr().err == ""


def test_what_is_counted_in_images_and_what_is_quiet(clock, capsys):
    with images_shown("verify", 4, visible=True) as more:
        clock[0] += 31.0
        more(3)
    assert capsys.readouterr().err == "verify: 3 of 4, about 10 s left\n"
    with images_shown("verify", 4, visible=False) as more:
        clock[0] += 31.0
        more(3)
    with shown("studies") as tell:
        clock[0] += 31.0
        tell(0, 9, "studies (0 objects)")
    assert capsys.readouterr().err == "studies (0 objects): 0 of 9\n"


def test_on_a_terminal_there_is_a_bar(monkeypatch):
    screen = Console(force_terminal=True, width=80, file=io.StringIO(), _environ={"TERM": "xterm"})
    monkeypatch.setattr(progress, "console", screen)
    with shown("reading") as tell:
        tell(1, 2)
    assert "reading" in screen.file.getvalue() and "1/2" in screen.file.getvalue()
