"""Settings files to begin with: the packages' own templates, filled in, and never written over what is there."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from string import Template

from sfumato_common.errors import ConfigError
from sfumato_common.files import write_atomic


def template_text(package: str, name: str, /, **values: object) -> str:
    """The template `name` in the folder `templates` of a package, with a value for each `$word` of it."""
    return Template((files(package) / "templates" / name).read_text(encoding="utf-8")).substitute(values)


def write_template(path: Path, text: str, schema_name: str = "", schema: str | None = None) -> None:
    """Write a new settings file, and beside it the JSON Schema that its first line then names to an editor.

    Raises ConfigError where a file stands already: somebody wrote it.
    """
    if path.exists():
        raise ConfigError(f"'{path.name}' is there already; choose another name, or put it away first")
    if not path.parent.is_dir():
        raise ConfigError(f"'{path.parent.name}', where '{path.name}' is to go, is no folder; make it first")
    if schema is not None:
        write_atomic(path.parent / schema_name, schema)
        text = f"# yaml-language-server: $schema={schema_name}\n{text}"
    write_atomic(path, text)
