"""`sfumato plan new`: a commented plan to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sfumato_common.command_line import say

Comma = "separated by commas"


def plan_new(
    out: Annotated[Path, typer.Argument(help="Where the plan goes, YAML.")] = Path("plan.yaml"),
    name: Annotated[str, typer.Option(help="The study's name.")] = "thorax",
    sites: Annotated[str, typer.Option(help=f"The hospitals' names, {Comma}.")] = "alder,birch,cedar",
    patients: Annotated[int, typer.Option(min=2, help="Nominal training patients of each.")] = 240,
    epsilon: Annotated[float, typer.Option(help="The most that a patient pays for the whole study.")] = 10.0,
    delta: Annotated[float, typer.Option(help="The guarantee's delta: below 1 over the patients of a site.")] = 1e-5,
    labels: Annotated[str, typer.Option(help=f"The images' labels, {Comma}.")] = "normal,abnormal",
    images: Annotated[
        Literal["chest", "fundus", "other"],
        typer.Option(help="What they show: frontal chest films, fundus photographs in colour, or anything grey."),
    ] = "chest",
    size: Annotated[int, typer.Option(help="Pixels a side, a multiple of 4.")] = 64,
    schema: Annotated[bool, typer.Option("--schema", help="Write its JSON Schema beside it, for an editor.")] = False,
) -> None:
    """Write a commented plan that 'plan check' takes as it stands, and ask nothing."""
    from sfumato_common.strict.schema import schema_text
    from sfumato_common.study.beginning import Beginning, plan_text
    from sfumato_common.study.schemas import plan_schema
    from sfumato_common.templates import write_template

    beginning = Beginning(name, _words(sites), patients, epsilon, delta, _words(labels), images, size)
    beside = schema_text(plan_schema()) if schema else None
    write_template(out, plan_text(beginning, out.name), "plan.schema.json", beside)
    said = f"'{out.name}' is a plan to begin with; edit it, then 'sfumato plan check {out.name}' shows what it costs"
    say(said)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
