"""The step of a site's work as its node may tell it: a file of the home, `STEP/STEPS`, there while policy shows it.

Steps of a round are the plan's own number. Who writes the file does so at whole multiples of the answer interval after
the question came (`egress.pace`), so that the step tells no more of time than answers do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfumato_common.files import if_room, read_object, write_atomic, write_json

PROGRESS_FILE, CONTACT_FILE = "progress", "contact.json"
_FORM = re.compile(rb"[0-9]{1,6}/[0-9]{1,6}")


def show_step(home: Path, step: int, steps: int) -> None:
    """Let the node tell that `step` of the round's `steps` is done."""
    write_atomic(home / PROGRESS_FILE, f"{min(step, steps)}/{steps}", mode=0o600)


def hide_step(home: Path) -> None:
    """Let the node tell nothing."""
    (home / PROGRESS_FILE).unlink(missing_ok=True)


def shown_step(home: Path) -> bytes | None:
    """What the node may tell now; nothing but two numbers ever leaves."""
    try:
        told = (home / PROGRESS_FILE).read_bytes()
    except OSError:
        return None
    return told if _FORM.fullmatch(told) else None


def heard_alone(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Of what is kept of the contact with the coordinator, when it last answered; nothing where it never did."""
    return {"heard": kept["heard"]} if "heard" in kept else {}


def forget_failures(home: Path) -> None:
    """Forget why an earlier run could not reach the coordinator."""
    kept = read_object(home / CONTACT_FILE)
    if "why" in kept:
        with if_room():
            write_json(home / CONTACT_FILE, heard_alone(kept))
