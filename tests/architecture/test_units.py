"""The systemd units: what they may do, which ends are not tried again, and what systemd itself says of them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sfumato_common import errors
from sfumato_common.command_line import INTERRUPTED

ROOT = Path(__file__).resolve().parents[2]
UNITS = {
    "sfumato-site": ROOT / "client" / "systemd" / "sfumato-site@.service",
    "sfumato": ROOT / "server" / "systemd" / "sfumato-coordinator@.service",
}
# ends after which the same command may well go on: an unforeseen fault, a port in use, a coordinator that is away, a
# full disk, a PACS; a coordinator whose quorum is not reached is a person's matter
TRIED_AGAIN = {"sfumato-site": {1, 5, 7, 11, 12}, "sfumato": {1, 5, 11, 12}}
WORST_EXPOSURE = 20  # tenths: "OK" to systemd is up to 50, a unit without any of this has 96

analyzed = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


def lines_of(unit):
    """(key, value) of each line of a unit."""
    return re.findall(r"^([A-Za-z]+)=(.*)$", UNITS[unit].read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("unit", UNITS)
def test_every_exit_code_is_tried_again_or_not_and_each_was_thought_of(unit):
    keys = dict(lines_of(unit))
    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type)}
    prevented = {int(code) for code in keys["RestartPreventExitStatus"].split()}
    assert prevented | TRIED_AGAIN[unit] == codes
    assert not prevented & TRIED_AGAIN[unit]
    assert keys["Restart"] == "on-failure"
    assert keys["SuccessExitStatus"] == str(INTERRUPTED), "a service that is stopped has not failed"


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_starts_a_command_that_there_is(unit, tmp_path):
    from typer.main import get_command

    from sfumato_client.cli.main import app as site_app
    from sfumato_server.cli.main import app as coordinator_app

    (line,) = [value for key, value in lines_of(unit) if key == "ExecStart"]
    program, *words = line.replace("${PORT}", "8443").split()
    assert program == f"/opt/sfumato/bin/{unit}"
    command = get_command(site_app if unit == "sfumato-site" else coordinator_app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    words[words.index("--home") + 1] = str(tmp_path)  # a command looks into one that is there
    assert not command.make_context(unit, words).args


def test_the_coordinator_is_on_loopback_unless_it_is_told_otherwise():
    assert ("Environment", "HOST=127.0.0.1 PORT=8443") in lines_of("sfumato")


@pytest.fixture(params=UNITS)
def installed(request, tmp_path):
    """The unit as a machine would have it, whose programs are those of this environment."""
    place = tmp_path / UNITS[request.param].name
    place.write_text(UNITS[request.param].read_text().replace("/opt/sfumato/bin", str(Path(sys.executable).parent)))
    return place


def analyze(*words):
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60, check=False)


@analyzed
def test_systemd_takes_every_line(installed):
    done = analyze("verify", "--man=no", str(installed))
    assert (done.returncode, done.stderr) == (0, "")
    installed.write_text(installed.read_text().replace("ProtectSystem=strict", "ProtectSystems=strict"))
    assert "ProtectSystems" in analyze("verify", "--man=no", str(installed)).stderr, "a misspelt line is seen"


@analyzed
def test_a_unit_is_as_closed_as_it_can_be(installed):
    words = ("security", "--offline=true", "--no-pager", f"--threshold={WORST_EXPOSURE}", str(installed))
    done = analyze(*words)
    assert done.returncode == 0, done.stdout
    opened = re.sub(r"^(Protect|Private|Restrict|System|Capability|NoNew).*\n", "", installed.read_text(), flags=re.M)
    installed.write_text(opened)
    assert analyze(*words).returncode != 0, "a unit without its walls is above the limit"
