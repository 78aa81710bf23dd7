"""What cases of tables are made of: a table over three small pictures a.png, b.png, c.png, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# rows kept, by file: (patient, label, split); or words that the refusal, the question or a row's reason must hold
Kept = dict[str, tuple[str, str, str | None]]


@dataclass(frozen=True)
class Table:
    """One table: its bytes, what the source says beside it, and what becomes of its rows."""

    name: str
    data: bytes
    expected: Kept | str
    source: dict[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ("a.png", "b.png", "c.png")


PLAIN = "file,patient_id,label\na.png,1,normal\nb.png,2,opacity\nc.png,3,normal\n"
THREE: Kept = {"a.png": ("1", "normal", None), "b.png": ("2", "opacity", None), "c.png": ("3", "normal", None)}


def table(name: str, text: str, expected: Kept | str = "", encoding: str = "utf-8", **more: Any) -> Table:
    files = more.pop("files", ("a.png", "b.png", "c.png"))
    return Table(name, text.encode(encoding), THREE if expected == "" else expected, more, files)
