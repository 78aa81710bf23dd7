"""`sfumato-site policy new` and `source new`: commented settings to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sfumato_client.cli.schema import schema_of
from sfumato_common.command_line import say
from sfumato_common.errors import ConfigError

policy_app = typer.Typer(no_args_is_help=True, help="What this hospital allows.")
source_app = typer.Typer(no_args_is_help=True, help="Where this hospital's images are.")
Schema = Annotated[bool, typer.Option("--schema", help="Write its JSON Schema beside it, for an editor.")]


@policy_app.command("new", epilog="Example: sfumato-site policy new policy.yaml --name alder --epsilon 8")
def policy_new(
    name: Annotated[str, typer.Option(help="This hospital's name, as the plan has it.")],
    out: Annotated[Path, typer.Argument(help="Where the policy goes, YAML.")] = Path("policy.yaml"),
    epsilon: Annotated[float, typer.Option(help="The most that a patient may ever be charged here.")] = 10.0,
    delta: Annotated[float, typer.Option(help="At which delta that epsilon is meant.")] = 1e-5,
    patients: Annotated[int, typer.Option(min=2, help="The least number of patients that may train.")] = 30,
    schema: Schema = False,
) -> None:
    """Write a commented policy that 'init' takes as it stands, and ask nothing."""
    from sfumato_common.study.beginning import policy_text

    _write(out, policy_text(name, epsilon, delta, patients), "policy", schema)
    say(
        f"'{out.name}' is a policy to begin with; read each line, then "
        f"'sfumato-site init --home site --policy {out.name}'"
    )


@source_app.command("new", epilog="Example: sfumato-site source new source.yaml --kind dicom --folder /data/chest")
def source_new(
    out: Annotated[Path, typer.Argument(help="Where the description goes, YAML.")] = Path("source.yaml"),
    kind: Annotated[
        Literal["dicom", "png", "images", "nifti", "npz"], typer.Option(help="What the images' files are.")
    ] = "dicom",
    folder: Annotated[Path, typer.Option(help="The folder of images, or a .zip of it.")] = Path("images"),
    labels: Annotated[Path, typer.Option(help="The table of labels, CSV; for npz the index.")] = Path("labels.csv"),
    site: Annotated[str, typer.Option(help="For npz: this hospital's word in the index's column 'site'.")] = "alder",
    schema: Schema = False,
) -> None:
    """Write a commented description of where the images are, and ask nothing."""
    from sfumato_client.ingest.beginning import source_text

    _write(out, source_text(kind, folder, labels, site), "source", schema)
    say(
        f"'{out.name}' is a source to begin with; edit it, then "
        f"'sfumato-site check --home site {out.name} --plan plan.yaml'"
    )


def _write(out: Path, text: str, kind: Literal["policy", "source"], schema: bool) -> None:
    from sfumato_common.strict.schema import schema_text
    from sfumato_common.templates import write_template

    if out.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"'{out.name}' is to be YAML: give it the ending .yaml")
    write_template(out, text, f"{kind}.schema.json", schema_text(schema_of(kind)) if schema else None)
