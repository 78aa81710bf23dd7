"""How far work on a set's images is, with the time that is left: on a terminal, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sfumato_common.command_line import console


@contextmanager
def images_shown(what: str, total: int, visible: bool) -> Iterator[Callable[[int], None]]:
    """A function that is told of images as they are done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = visible and console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        task = progress.add_task(what, total=total)
        yield lambda images: progress.advance(task, images)
