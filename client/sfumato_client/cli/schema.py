"""`sfumato-site schema`: the JSON Schemas of the files that a hospital's people write."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sfumato_common.command_line import print_schema

Settings = Literal["policy", "source", "pacs", "table", "plan"]


def schema(
    file: Annotated[Settings, typer.Argument(help="Which file: policy, source, pacs, a table's schema, or a plan.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where it goes; else it is printed.")] = None,
) -> None:
    """Print the JSON Schema of a settings file, by which editors complete and check it."""
    print_schema(schema_of(file), out)


def schema_of(file: Settings) -> dict[str, Any]:
    """The JSON Schema of one kind of settings."""
    from sfumato_common.strict.schema import json_schema
    from sfumato_common.study.schemas import plan_schema, policy_schema

    if file in ("plan", "policy"):
        return plan_schema() if file == "plan" else policy_schema()
    if file == "source":
        from sfumato_client.ingest.sources import SourceConfig

        return json_schema(SourceConfig, "Sfumato: where a site's images are")
    if file == "pacs":
        from sfumato_client.pacs.settings import PacsConfig

        return json_schema(PacsConfig, "Sfumato: a hospital's PACS")
    from sfumato_client.tabular.schema import TableSchema

    return json_schema(TableSchema, "Sfumato: a table and what it may cost")
