"""`sfumato schema`: the JSON Schemas of the files that a study's people write."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sfumato_common.command_line import print_schema

Out = Annotated[Path | None, typer.Option("--out", "-o", help="Where it goes; else it is printed.")]


def schema(
    file: Annotated[Literal["plan", "policy"], typer.Argument(help="Which file: a study's plan, or a site's policy.")],
    out: Out = None,
) -> None:
    """Print the JSON Schema of a plan or a policy, by which editors complete and check it."""
    from sfumato_common.study.schemas import plan_schema, policy_schema

    print_schema({"plan": plan_schema, "policy": policy_schema}[file](), out)
