"""Every command of both command lines explains itself: arguments, options, defaults and an example."""

import itertools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer import rich_utils
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from sfumato_client.cli.main import app as site_app
from sfumato_common import __version__
from sfumato_server.cli.main import app as coordinator_app

PROGRAMS = {"sfumato": coordinator_app, "sfumato-site": site_app}
FRAME = re.compile(r"[\s\u2500-\u257f*]+")  # spaces, line ends, boxes and the star of what is required


def commands(program, command, words=()):
    """(program, words, command) of every command that is no group."""
    if not isinstance(command, TyperGroup):
        return [(program, words, command)]
    return [found for name, part in command.commands.items() for found in commands(program, part, (*words, name))]


COMMANDS = [found for program, app in PROGRAMS.items() for found in commands(program, get_command(app))]
NAMES = [" ".join([program, *words]) for program, words, _ in COMMANDS]


@pytest.fixture
def shown(monkeypatch):
    """What a command's help says, without the boxes around it."""
    monkeypatch.setattr(rich_utils, "MAX_WIDTH", 400)
    for name in ("SFUMATO_SITE_HOME", "SFUMATO_COORDINATOR_HOME"):
        monkeypatch.delenv(name, raising=False)

    def run(program, *words):
        result = CliRunner().invoke(PROGRAMS[program], [*words, "--help"], prog_name=program)
        assert result.exit_code == 0
        return plain(result.output)

    return run


def plain(text):
    return FRAME.sub(" ", text)


def test_the_walk_finds_every_command():
    assert len(NAMES) == 84
    assert {"sfumato plan check", "sfumato demo", "sfumato-site ledger check", "sfumato-site tabular"} <= set(NAMES)


def test_every_command_with_a_home_closes_it_first():
    homes = [part for _, _, command in COMMANDS for part in command.params if "HOME" in str(part.envvar)]
    assert len(homes) > 20
    assert {tuple(part.opts) for part in homes} == {("--home",)}
    assert not [part for part in homes if part.callback is None]


@pytest.mark.parametrize(("program", "words", "command"), COMMANDS, ids=NAMES)
def test_help_shows_every_argument_option_and_default(shown, program, words, command):
    said = shown(program, *words)
    assert plain(command.help.splitlines()[0]) in said
    assert command.params
    for parameter in command.params:
        assert parameter.help, parameter.name
        assert plain(parameter.help) in said
        if (
            parameter.default not in (None, False, "", ())
            and not callable(parameter.default)
            and not parameter.required
        ):
            assert f"[default: {parameter.default}]" in said


@pytest.mark.parametrize(("program", "words", "command"), COMMANDS, ids=NAMES)
def test_help_ends_with_an_example_that_the_command_takes(shown, program, words, command, tmp_path, monkeypatch):
    said = shown(program, *words)
    example = command.epilog.removeprefix("Example: ")
    assert f"Example: {example}" in said
    named = (program, *words)
    written = tuple(shlex.split(example))
    assert written[: len(named)] == named
    monkeypatch.chdir(tmp_path)
    for option, value in itertools.pairwise(written):
        if option == "--home":  # commands look into one that is there
            (tmp_path / value).mkdir()
    context = command.make_context(" ".join(named), list(written[len(named) :]))  # raises for what does not parse
    assert not context.args


def run(program, *words, **more):
    path = str(Path(sys.executable).parent / program)
    environment = {**os.environ, **more}
    return subprocess.run([path, *words], env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("program", PROGRAMS)
def test_version(program):
    done = run(program, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{program} {__version__}\n", "")


@pytest.mark.parametrize(("program", "typed", "found"), [("sfumato", "pl", "plan"), ("sfumato-site", "led", "ledger")])
def test_completion(program, typed, found):
    ask = f"_{program.upper().replace('-', '_')}_COMPLETE"
    done = run(program, **{ask: "complete_bash", "COMP_CWORD": "1", "COMP_WORDS": f"{program} {typed}"})
    assert done.stdout.split() == [found]
    assert not done.stderr
    done = run(program, "--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0
    assert done.stdout.rstrip().endswith(f"_completion {program}")
