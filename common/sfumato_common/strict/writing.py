"""YAML text that readers of versions 1.1 and 1.2 read alike: a word that either takes for something else is quoted."""

from __future__ import annotations

import io
import re
from typing import Any

# what needs no quotes in either version: it begins as a word, and is none of those that mean something
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./@+-]*")
_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null"))


def yaml_word(value: str | float) -> str:
    """One value as it stands in YAML text, in quotes where it needs them."""
    return yaml_text([value]).removeprefix("- ").rstrip("\n")


def yaml_text(value: Any) -> str:
    """Plain data as YAML text, keys in their order."""
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import SafeRepresenter

    class Quoting(SafeRepresenter):
        """Quotes what is not plainly a word, and writes every value out."""

        def ignore_aliases(self, data: Any) -> bool:
            """No value stands for another."""
            return True

    def word(representer: SafeRepresenter, text: str) -> Any:
        plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS
        return representer.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else "'")

    def number(representer: SafeRepresenter, value: float) -> Any:
        node = representer.represent_float(value)
        if "e" in node.value and "." not in node.value:  # version 1.1 takes 1e-05 for a word
            node.value = node.value.replace("e", ".0e", 1)
        return node

    Quoting.add_representer(str, word)
    Quoting.add_representer(float, number)
    writer = YAML(typ="safe", pure=True)
    writer.Representer = Quoting
    writer.default_flow_style = False
    writer.allow_unicode = True
    writer.width = 10_000
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = io.StringIO()
    writer.dump(value, stream)
    return stream.getvalue()
