"""The two command lines, run in this process."""

import sys
from collections.abc import Callable
from typing import Any

import pytest

from sfumato_client.cli import main as site_cli
from sfumato_server.cli import main as coordinator_cli

Say = Callable[..., tuple[int, str, str]]


def speaker(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs `sfumato` or `sfumato-site` with these words; returns (exit code, what stderr says, stdout)."""

    def run(program: str, *words: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [program, *map(str, words)])
        if words[:2] == ("coordinator", "run"):
            monkeypatch.delenv("SFUMATO_CA_PASSPHRASE", raising=False)  # nobody runs a study where they enrol
        door = site_cli if program == "sfumato-site" else coordinator_cli
        with pytest.raises(SystemExit) as stopped:
            door.main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        lines = captured.err.strip().splitlines()
        listed = len(lines) > 1 and lines[0].endswith(" faults") and all(line.startswith("  ") for line in lines[1:])
        assert listed or len(lines) <= 1, "one clear line, or a line for each fault of a file"
        return int(stopped.value.code or 0), "\n".join(lines), captured.out

    return run
