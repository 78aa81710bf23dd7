"""Write the pages of `docs/reference` from the code: every command, every key of plan, policy and source.

    python docs/reference.py          # or `make reference`

Nothing in those pages is written by hand: what a key means stands under its field, what a command does in its function.
A key or an option without a description ends the program.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import Any

from pydantic import TypeAdapter
from typer.core import TyperGroup
from typer.main import get_command

from sfumato_client.cli.main import app as site_app
from sfumato_client.ingest.sources import SourceConfig
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy
from sfumato_server.cli.main import app as coordinator_app

FOLDER = Path(__file__).parent / "reference"
BY = "Written by `make reference` from the code; do not edit."
Schema = dict[str, Any]
# keys that say which of several records one is come first
_FIRST = ("kind", "method")


def pages() -> dict[str, str]:
    """Every page by its name."""
    source = TypeAdapter(SourceConfig).json_schema()
    return {
        "commands-coordinator.md": _commands("sfumato", coordinator_app, "The coordinator's commands"),
        "commands-site.md": _commands("sfumato-site", site_app, "The hospital's commands"),
        "plan.md": _keys("The plan's keys", Plan.model_json_schema(), "plan.yaml"),
        "policy.md": _keys("The policy's keys", Policy.model_json_schema(), "policy.yaml"),
        "source.md": _keys("The source's keys", source, "source.yaml"),
    }


def _commands(program: str, app: Any, title: str) -> str:
    lines = [f"# {title}", "", BY, ""]
    for words, command in _walk(get_command(app), (program,)):
        lines += [f"## {' '.join(words)}", "", *_paragraphs(command.help), ""]
        lines += ["| | default | what |", "|---|---|---|", *map(_parameter, command.params), ""]
        lines += ["```", command.epilog.removeprefix("Example: "), "```", ""]
    return "\n".join(lines)


def _walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not isinstance(command, TyperGroup):
        yield words, command
        return
    for name, part in command.commands.items():
        yield from _walk(part, (*words, name))


def _paragraphs(text: str) -> list[str]:
    """The text in lines that an editor shows whole."""
    said = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text.replace("\b", ""))]
    return "\n\n".join(fill(part.replace("<", "&lt;"), 150) for part in said if part).split("\n")


def _parameter(parameter: Any) -> str:
    assert parameter.help, f"{parameter.name} has no help"
    named = parameter.name.upper() if parameter.param_type_name == "argument" else ", ".join(parameter.opts)
    default = "required" if parameter.required else _value(parameter.default)
    variable = f" (`{parameter.envvar}`)" if parameter.envvar else ""
    return _row(f"`{named}`", default, parameter.help + variable)


def _value(value: object) -> str:
    if value is None or value == "" or callable(value) or value in ((), [], {}):
        return ""
    if isinstance(value, dict):
        return "its own"
    shown = value.as_posix() if isinstance(value, Path) else value
    return f"`{shown if isinstance(shown, str) else json.dumps(shown)}`"


def _row(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"


def _keys(title: str, schema: Schema, file: str) -> str:
    """The page of one file's keys: those of the file itself, then of every record that it speaks of, nearest first."""
    lines = [f"# {title}", "", BY, f"Of `{file}`; unknown keys are errors that name the nearest right one.", ""]
    lines += _table(file, schema, schema) if "properties" in schema else []
    waiting, seen = _named(schema.get("properties", schema.get("oneOf"))), set[str]()
    while waiting:
        name, *waiting = waiting
        if name not in seen:
            seen.add(name)
            part = schema["$defs"][name]
            lines += _table(_heading(name, part), part, schema) if "properties" in part else []
            waiting += _named(part)
    return "\n".join(lines)


def _named(value: object) -> list[str]:
    """Names of the records that a part of a schema speaks of, in its order."""
    if isinstance(value, list):
        return [name for inner in value for name in _named(inner)]
    if not isinstance(value, dict):
        return []
    own = [value["$ref"].rpartition("/")[2]] if isinstance(value.get("$ref"), str) else []
    return own + [name for key, inner in value.items() if key != "discriminator" for name in _named(inner)]


def _heading(name: str, part: Schema) -> str:
    """What a record is called: by its kind or method where it has one, else the words of its name."""
    words = [part["properties"][key].get("const") for key in _FIRST if key in part["properties"]]
    return next(filter(None, words), " ".join(re.findall("[A-Z][a-z0-9]*", name)).lower())


def _table(name: str, part: Schema, schema: Schema) -> list[str]:
    rows = sorted(part["properties"].items(), key=lambda item: item[0] not in _FIRST)
    undescribed = [key for key, value in rows if "description" not in value]
    assert not undescribed, f"{name}: no description of {undescribed}"
    said = _paragraphs(part.get("description", ""))
    lines = [f"## {name}", "", *said, "", "| key | takes | default | what |", "|---|---|---|---|"]
    for key, value in rows:
        default = "required" if key in part.get("required", ()) else _value(value.get("default"))
        lines.append(_row(f"`{key}`", _takes(value, schema["$defs"]), default, value["description"]))
    return [*lines, ""]


def _takes(value: Schema, parts: dict[str, Schema]) -> str:
    """What a key takes, in words: a kind of value, its bounds, or the words to choose from."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        if "properties" not in parts[name]:
            return _takes(parts[name], parts)
        heading = _heading(name, parts[name])
        return f"[{heading}](#{heading.replace(' ', '-')})"
    if "const" in value:
        return _value(value["const"])
    if "enum" in value:
        return ", ".join(map(_value, value["enum"]))
    if several := value.get("anyOf") or value.get("oneOf"):
        return " or ".join(dict.fromkeys(_takes(one, parts) for one in several if one.get("type") != "null"))
    if value.get("type") == "array":
        return f"list of {_takes(value['items'], parts)}" if value.get("items") else "list"
    if value.get("type") == "object":
        held = [value.get("additionalProperties"), *value.get("patternProperties", {}).values()]
        inner = next((one for one in held if isinstance(one, dict) and one), None)
        return f"by name: {_takes(inner, parts)}" if inner else "mapping"
    return _plain(value)


def _plain(value: Schema) -> str:
    kinds = {"integer": "whole number", "number": "number", "boolean": "`true`, `false`", "string": "text"}
    said = "path" if value.get("format") == "path" else kinds.get(value.get("type", ""), "any value")
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    return " ".join([said, *(f"{word} {value[bound]:g}" for bound, word in words.items() if bound in value)])


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text.rstrip() + "\n")


if __name__ == "__main__":
    main()
