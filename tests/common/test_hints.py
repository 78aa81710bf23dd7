"""Commands that sentences name carry the home that was typed, and only where they take one."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from sfumato_client.cli.main import app as site_app
from sfumato_common.count_text import count_text
from sfumato_common.hints import forget_home, remember_home, with_home
from sfumato_server.cli.main import app as coordinator_app

PROGRAMS = {"sfumato-site": site_app, "sfumato": coordinator_app}
BIN = Path(sys.executable).parent


@pytest.fixture(params=["typed", "environment"])
def typed(request, monkeypatch):
    """Remember a home as a command of `program` would that was given it."""

    def given(program: str, words: list[str], home: str) -> None:
        command, context = get_command(PROGRAMS[program]), None
        for word in [program, *words]:
            command = command if context is None else command.commands[word]
            context = typer.Context(command, info_name=word, parent=context)
        arguments = ["--home", home]
        if request.param == "environment":
            monkeypatch.setenv("SFUMATO_SITE_HOME" if program == "sfumato-site" else "SFUMATO_COORDINATOR_HOME", home)
            arguments = []
        option = next(each for each in command.params if each.name == "home")
        option.callback = None
        command.params = [option]
        command.parse_args(context, arguments)
        remember_home(context, Path(home))

    given.way = request.param
    yield given
    forget_home()


CASES = [
    ("sfumato-site", "site", "'sfumato-site run' joins", "'sfumato-site run --home site' joins"),
    ("sfumato-site", "site", "'sfumato-site steward add NAME'", "'sfumato-site steward add --home site NAME'"),
    ("sfumato-site", "site", "'sfumato-site accept plan.yaml'", "'sfumato-site accept --home site plan.yaml'"),
    ("sfumato-site", "my site", "'sfumato-site run'", "'sfumato-site run --home \"my site\"'"),
    ("sfumato-site", 'a "$b"', "'sfumato-site run'", "'sfumato-site run --home \"a \\\"\\$b\\\"\"'"),
    ("sfumato-site", "site", "'sfumato-site init --home other'", "'sfumato-site init --home other'"),
    ("sfumato-site", "site", "'sfumato-site schema', 'sfumato plan new'", "'sfumato-site schema', 'sfumato plan new'"),
    ("sfumato-site", "site", "ask for 'sfumato coordinator run'", "ask for 'sfumato coordinator run'"),
    ("sfumato-site", "site", "run sfumato-site run, or 'leave'", "run sfumato-site run, or 'leave'"),
    ("sfumato", "coord", "'sfumato coordinator run' goes on", "'sfumato coordinator run --home coord' goes on"),
    ("sfumato", "coord", "'sfumato-site status' there", "'sfumato-site status' there"),
]  # fmt: skip


@pytest.mark.parametrize(("program", "home", "said", "shown"), CASES)
def test_a_command_that_is_named_can_be_typed(typed, program, home, said, shown):
    typed(program, ["status"] if program == "sfumato-site" else ["study", "status"], home)
    assert with_home(said) == (shown if typed.way == "typed" else said)


def test_without_a_home_sentences_stand_as_they_are():
    forget_home()
    assert with_home("'sfumato-site run' joins") == "'sfumato-site run' joins"


def test_real_consoles_name_the_home(tmp_path):
    def said(*words: str) -> str:
        done = subprocess.run([BIN / words[0], *words[1:]], capture_output=True, text=True, cwd=tmp_path, timeout=120)
        return done.stdout + done.stderr

    said("sfumato-site", "policy", "new", "policy.yaml", "--name", "alder", "--epsilon", "8")
    said("sfumato-site", "init", "--home", "my site", "--policy", "policy.yaml")
    assert "'sfumato-site join --home \"my site\"'" in said("sfumato-site", "status", "--home", "my site", "--once")
    told = said("sfumato-site", "leave", "thorax", "--home", "my site")
    assert "'sfumato-site status --home \"my site\"' names those that are" in told


def test_one_thing_is_no_several_things():
    assert [count_text(number, "image") for number in (0, 1, 1000)] == ["0 images", "1 image", "1,000 images"]
    assert [count_text(number, "study", "studies") for number in (1, 2)] == ["1 study", "2 studies"]
