"""A settings file as plain data, with the line of every value: YAML 1.2 by ruamel.yaml's scanner and parser.

Its events are made into data here, so that aliases are counted before they are written out, nothing is constructed but
plain values, and a fault does not hide the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sfumato_common.errors import ConfigError
from sfumato_common.strict.scalars import Unclear, resolve

Place = tuple[str | int, ...]
# values of one file, those that aliases repeat among them; the largest plan has some 2,000
MOST_VALUES = 50_000
DEEPEST = 60
_TEXT_TAGS = ("tag:yaml.org,2002:str", "!")
_PATHS = "use single quotes, or / instead"
# what YAML's own words for a fault mean to who wrote the file
_MEANINGS = (
    ("escape", f"a backslash in double quotes; {_PATHS}"),
    ("'\\t'", "a tab; indent with blanks"),
    ("alias", "'*name' stands for what '&name' marks further up, and nothing there is marked so"),
    ("single document", "'---' begins a second document; write one a file"),
)


class Spot(NamedTuple):
    """Where a value stands: its line, from 1, and how it is written, None where it is quoted or no single word."""

    line: int
    written: str | None = None


class Fault(NamedTuple):
    """One thing that is wrong in a file; `value` is how it is written, and `said` goes on from there."""

    line: int | None
    place: Place
    said: str
    value: str | None = None


@dataclass(frozen=True)
class Document:
    """A file's plain data, where each value of it stands, and what is wrong with it whatever it is meant to be."""

    name: str
    value: Any
    spots: Mapping[Place, Spot] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()


def read_document(path: Path) -> Document:
    """Read a YAML file. Raises ConfigError, with file, line and remedy, for what is no YAML at all."""
    return document(file_text(path), path.name)


def document(text: str, name: str) -> Document:
    """YAML text that errors call `name`. Raises ConfigError as `read_document`."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        tree = _Tree(YAML(typ="safe", pure=True).parse(text)).root
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        said = str(getattr(error, "problem", None) or "")
        why = next((words for sign, words in _MEANINGS if sign in said), "check indentation and quotes")
        raise ConfigError(f"{name}:{where} is not valid YAML; {why}") from None
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    made = _Values(name)
    value = made.value(tree, ()) if tree else None
    return Document(name, value, made.spots, tuple(made.faults))


def file_text(path: Path) -> str:
    """The text of a file. Raises ConfigError, with file and line, where it cannot be read or is no UTF-8."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path.name}: cannot be read ({error.strerror}); check the path") from None
    marked = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        return raw.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path.name}: cannot be read: it is not UTF-8 at line {line}; save it as UTF-8") from None


@dataclass(eq=False)
class _Node:
    """One value as it is written: a scalar's text, or the nodes below it; of a mapping keys and values in turn."""

    line: int
    text: str | None = None
    style: str | None = None
    tag: str | None = None
    mapping: bool = False
    below: list[_Node] = field(default_factory=list)


class _Tree:
    """The nodes of a stream of events; an alias is the node that its anchor marks. Raises ConfigError."""

    def __init__(self, events: Iterator[Any]) -> None:
        self.root: _Node | None = None
        anchors: dict[str, _Node] = {}
        open_nodes: list[_Node] = []
        for event in events:
            kind, line = type(event).__name__, event.start_mark.line + 1
            if kind in ("SequenceEndEvent", "MappingEndEvent"):
                open_nodes.pop()
                continue
            if kind == "DocumentStartEvent" and self.root:
                raise ConfigError(f"line {line} begins a second document; write one a file")
            if kind == "AliasEvent":
                if event.anchor not in anchors:
                    unknown = f"'*{event.anchor}' stands for nothing: no '&{event.anchor}' is above it"
                    raise ConfigError(f"line {line}: {unknown}; write the value out")
                node = anchors[event.anchor]
            elif kind in ("ScalarEvent", "SequenceStartEvent", "MappingStartEvent"):
                node = _Node(line, getattr(event, "value", None), getattr(event, "style", None), event.tag)
                node.mapping = kind == "MappingStartEvent"
            else:
                continue
            self._put(node, open_nodes)
            if kind != "AliasEvent" and event.anchor:
                anchors[event.anchor] = node
            if kind in ("SequenceStartEvent", "MappingStartEvent"):
                open_nodes.append(node)
                if len(open_nodes) > DEEPEST:
                    raise ConfigError(f"line {line} cannot be read: it is nested too deep")

    def _put(self, node: _Node, open_nodes: list[_Node]) -> None:
        if open_nodes:
            open_nodes[-1].below.append(node)
        else:
            self.root = node


class _Values:
    """Plain data of nodes, and what is found wrong on the way."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.spots: dict[Place, Spot] = {}
        self.faults: list[Fault] = []
        self._made = 0
        self._around: list[_Node] = []

    def value(self, node: _Node, place: Place) -> Any:
        """The data of `node`, which stands at `place`. Raises ConfigError where aliases make it endless."""
        self._count(node)
        plain = node.text is not None and node.style is None and node.tag is None
        self.spots[place] = Spot(node.line, node.text if plain else None)
        if node.tag not in (None, *_TEXT_TAGS):
            return self._wrong(node, place, "a type in the file ('!') is not taken; write the plain value")
        if node.text is not None:
            return self._scalar(node, place) if plain else self._quoted(node, place)
        self._around.append(node)
        made = self._keys(node, place) if node.mapping else self._entries(node, place)
        self._around.pop()
        return made

    def _entries(self, node: _Node, place: Place) -> list[Any]:
        return [self.value(entry, (*place, at)) for at, entry in enumerate(node.below)]

    def _keys(self, node: _Node, place: Place, besides: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A mapping's data, without the keys that are in `besides`: those are said already."""
        own: dict[str, Any] = {}
        seen: set[str] = set()
        merged: list[_Node] = []
        for key, value in zip(node.below[::2], node.below[1::2], strict=True):
            if key.text is None or (not key.text and key.style is None):
                self._wrong(key, place, "a key is not a plain word; put it in quotes")
            elif key.text == "<<" and key.style is None:
                merged += self._merged(value, place)
            elif key.text in seen:
                self._wrong(key, (*place, key.text), f"key '{key.text}' is given twice; keep one")
            elif key.text not in (besides or {}):
                own[key.text] = self.value(value, (*place, key.text))
            seen.add(key.text or "")
        for one in merged:  # of several the first says it, and what stands beside '<<' says it before them
            self._count(one)
            own = {**self._keys(one, place, {**(besides or {}), **own}), **own}
        return own

    def _count(self, node: _Node) -> None:
        """Count what is made, also of what aliases repeat. Raises ConfigError where there is no end of it."""
        self._made += 1
        if self._made > MOST_VALUES or node in self._around:
            raise ConfigError(
                f"{self.name}: line {node.line} cannot be read: aliases repeat it without end; write it out"
            )

    def _merged(self, node: _Node, place: Place) -> list[_Node]:
        """The mappings that '<<' takes in: one, or a list of them."""
        found = [node] if node.mapping else node.below
        if not found or not all(one.mapping for one in found):
            self._wrong(node, place, "'<<' takes in a mapping that '&name' marks: write '<<: *name'")
            return []
        return found

    def _scalar(self, node: _Node, place: Place) -> Any:
        assert node.text is not None
        try:
            return resolve(node.text)
        except Unclear as error:
            return self._wrong(node, place, str(error), node.text)

    def _quoted(self, node: _Node, place: Place) -> Any:
        """A word; a Windows path in double quotes, whose backslashes have become other signs, is none."""
        text = node.text or ""
        if node.style == '"' and text[1:2] == ":" and any(ord(sign) < 32 for sign in text):
            return self._wrong(node, place, f"a path with backslashes stands in double quotes; {_PATHS}")
        return text

    def _wrong(self, node: _Node, place: Place, said: str, value: str | None = None) -> None:
        self.faults.append(Fault(node.line, place, said, value))
