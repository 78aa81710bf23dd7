"""Logs as JSON lines: what they hold, and that no text of anybody else's is in them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sfumato_common.errors import ConfigError
from sfumato_common.logs import VARIABLE, JsonLines, choose_log, log_form

PATIENT = "Doe^Jane 1970-01-01"


def line(name, message, *args, exc_info=None, trusted=("sfumato_common", "sfumato_client", "sfumato_server")):
    record = logging.LogRecord(name, logging.ERROR, "file.py", 1, message, args, exc_info)
    return json.loads(JsonLines(trusted).format(record))


def test_our_own_messages_are_kept_and_those_of_libraries_are_not():
    said = line("sfumato_client.site.handler", "request '%s' not answered: %s", "stage", "busy")
    assert said["message"] == "request 'stage' not answered: busy"
    assert {"time", "level", "logger", "process"} < said.keys()
    assert said["time"].endswith("+00:00")
    for library in ("pydicom", "PIL.Image", "py.warnings", "flwr", "root", "sfumato_clientele"):
        assert "message" not in line(library, "bad value for %s", PATIENT)
    assert line("flwr", "SuperNode ID: 7", trusted=("flwr",))["message"] == "SuperNode ID: 7"


def test_fields_stand_beside_the_message_of_our_own_code_alone():
    for name, kept in (("sfumato_server.rounds.loop", True), ("pydicom", False)):
        record = logging.LogRecord(name, logging.INFO, "f", 1, "it ended", (), None)
        record.fields = {"stage": "gan", "round": 2}
        assert (json.loads(JsonLines().format(record)).get("round") == 2) is kept


def test_an_exception_is_its_class_and_where_it_passed():
    try:
        Path(f"/data/{PATIENT}.dcm").read_bytes()
    except OSError:
        said = line("sfumato_client.site.handler", "it failed", exc_info=sys.exc_info())
    assert said["error"]["class"] == "FileNotFoundError"
    assert said["error"]["at"][0].startswith("test_logs.py:")
    assert PATIENT not in json.dumps(said)


def test_a_message_of_several_lines_is_one_line():
    record = logging.LogRecord("sfumato_common", logging.INFO, "f", 1, "one\ntwo", (), None)
    assert "\n" not in JsonLines().format(record)


def test_the_option_holds_for_what_is_started_and_none_leaves_what_was_said(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    choose_log(None)
    assert log_form() == "text"
    monkeypatch.setenv(VARIABLE, "text")
    choose_log("text")
    assert os.environ[VARIABLE] == "text"


@pytest.mark.parametrize("program", ["sfumato_server", "sfumato_client"])
def test_a_command_that_fails_says_so_in_a_line_of_json(program, tmp_path):
    name = {"sfumato_server": "study", "sfumato_client": "status"}[program]
    arguments = [name, *(["status"] if program == "sfumato_server" else []), "--home", str(tmp_path), "--once"]
    code = f"import sys; from {program}.cli.main import main; sys.argv[0] = 'x'; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--log", "json", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == ConfigError.exit_code
    lines = [json.loads(text) for text in done.stderr.splitlines()]
    assert lines and lines[-1]["level"] == "ERROR"


def test_what_ends_a_process_is_logged_without_its_text(tmp_path):
    code = (
        "import threading, warnings\n"
        "from sfumato_common.logs import start_log\n"
        "start_log()\n"
        f"warnings.warn({PATIENT!r})\n"
        f"thread = threading.Thread(target=lambda: int({PATIENT!r})); thread.start(); thread.join()\n"
        f"raise ValueError({PATIENT!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, VARIABLE: "json"}, capture_output=True, text=True, check=False
    )
    lines = [json.loads(text) for text in done.stderr.splitlines()]
    assert [found.get("error", {}).get("class") for found in lines] == [None, "ValueError", "ValueError"]
    assert "Jane" not in done.stderr
