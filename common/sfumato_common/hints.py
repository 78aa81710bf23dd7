"""Commands that sentences name, as whoever reads them can type them: with the home that this command was given.

A sentence that is raised deep in the code knows no home: it says 'sfumato-site run'. On the console that was given
`--home site` it reads 'sfumato-site run --home site'. A home that the environment names need not be typed.
"""

from __future__ import annotations

import re
from pathlib import Path

import click
from click.core import ParameterSource

_HINT = re.compile(r"'(sfumato(?:-site)?)((?: [a-z][a-z-]*)+)(?=([^']*)')")
_OPTION = "home"
_given: list[tuple[click.Context, str]] = []


def forget_home() -> None:
    """Another command begins in this process."""
    _given.clear()


def remember_home(context: click.Context, home: Path) -> None:
    """From now on `with_home` completes what is said, where `--home` was typed."""
    forget_home()
    if context.get_parameter_source(_OPTION) is ParameterSource.COMMANDLINE:
        _given.append((context.find_root(), str(home)))


def with_home(text: str) -> str:
    """`text` whose commands of this program carry the home, where they take one and do not name it already."""
    if not _given:
        return text
    root, home = _given[0]
    # in double quotes, where a shell still reads these four
    quoted = re.sub(r'(["\\$`])', r"\\\1", home)
    shown = home if re.fullmatch(r"[\w@%+=:,./-]+", home) else f'"{quoted}"'

    def complete(found: re.Match[str]) -> str:
        program, words, rest = found.groups()
        taken = _taken(root, program, words.split())
        if not taken or f"--{_OPTION}" in rest:
            return found[0]
        left = words.split()[len(taken) :]
        return " ".join([f"'{program}", *taken, f"--{_OPTION} {shown}", *left])

    return _HINT.sub(complete, text)


def _taken(root: click.Context, program: str, words: list[str]) -> list[str]:
    """Those of `words` that name a command of this program which takes a home; none where there is none."""
    command, taken = root.command, list[str]()
    if program != root.info_name:
        return []
    for word in words:
        inner = command.commands.get(word) if isinstance(command, click.Group) else None
        if inner is None:
            break
        command, taken = inner, [*taken, word]
    return taken if any(each.name == _OPTION for each in command.params) else []
