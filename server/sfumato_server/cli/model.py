"""`sfumato model`: what a checkpoint is and cost, images drawn from it, and weights for stages to start from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sfumato_common.command_line import AsJson, console, file_bytes, print_json
from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.files import write_atomic
from sfumato_common.generators import GENERATORS
from sfumato_common.strict import parse
from sfumato_common.study.load import load_plan
from sfumato_common.study.plan import Plan
from sfumato_common.types import Arrays, fingerprint

model_app = typer.Typer(no_args_is_help=True, help="Look into a checkpoint, draw images from it, make a stage's start.")
File = Annotated[Path, typer.Argument(help="A checkpoint or a final model, safetensors.")]
SHEET = "sheet.png"
_PRETRAINED = [kind for kind, record in GENERATORS.items() if record.pretraining]
_STARTED = [kind for kind, record in GENERATORS.items() if "start" in record.settings.model_fields]


def _one_of(kinds: Sequence[str]) -> str:
    return "The stage. " + " ".join(f"{kind}: {GENERATORS[kind].help}" for kind in kinds)


@model_app.command("info", epilog="Example: sfumato model info flow-model.safetensors")
def model_info(file: File, as_json: AsJson = False) -> None:
    """Print the card of a checkpoint: study, round, epsilon so far, what the weights contain."""
    from sfumato_server.rounds.card import card_lines, read_checkpoint

    card, arrays = read_checkpoint(file)
    if card is None:
        raise VerificationError(
            f"'{file.name}' has no card ({len(arrays)} arrays): it is not of Sfumato, or an earlier version wrote it"
        )
    if as_json:
        print_json(card.model_dump(mode="json"))
        return
    table = Table(title=f"'{file.name}'", show_header=False, title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")  # a hash cut short is no hash
    for name, value in card_lines(card):
        table.add_row(name, value)
    console.print(table)


@model_app.command(
    "sample",
    epilog="Example: sfumato model sample flow-model.safetensors --plan coord/plan.json --out drawn --count 64",
)
def model_sample(
    file: File,
    plan: Annotated[Path, typer.Option(help="The study plan that the model was trained under, YAML or JSON.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the images and the contact sheet.")],
    model: Annotated[str, typer.Option(help="Which model of the file: its own stage's, or 'spectral'.")] = "",
    label: Annotated[str, typer.Option(help="Draw this class only; otherwise by the model's own shares.")] = "",
    site: Annotated[str, typer.Option(help="Draw for this site only, where the plan fits sites apart.")] = "",
    count: Annotated[int, typer.Option(min=1, max=100_000, help="How many images.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same images.")] = 0,
) -> None:
    """Draw images from a model: post-processing, so that no epsilon is spent. Writes PNG files and a contact sheet."""
    from sfumato_common.imaging import encode_png
    from sfumato_server.pictures import COLUMNS, grid, png
    from sfumato_server.rounds.draws import draw_model

    drawn = draw_model(file, _plan(plan), model, label, site, count, seed)
    for number, (image, name) in enumerate(zip(drawn.images, drawn.names, strict=True)):
        write_atomic(out / f"{drawn.kind}-{name}-{number:05d}.png", encode_png(image))
    write_atomic(out / SHEET, png(grid(drawn.images[: COLUMNS * COLUMNS], COLUMNS)))
    card = drawn.card
    cost = "no differential privacy" if card.epsilon is None else f"epsilon {card.epsilon:.3f} at delta {card.delta:g}"
    console.print(
        f"{len(drawn.images)} images of model '{drawn.kind}' after round {card.round} of {card.rounds} of stage "
        f"'{card.stage}' ({cost}, paid in training), and the contact sheet '{SHEET}'",
        markup=False,
        soft_wrap=True,
    )


@model_app.command(
    "pretrain", epilog="Example: sfumato model pretrain plan.yaml --out start.safetensors --stage flow --on phantom"
)
def model_pretrain(
    plan: Annotated[Path, typer.Argument(help="The study plan whose stage will start from these weights.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the weights go, safetensors.")],
    stage: Annotated[str, typer.Option(help=_one_of(_PRETRAINED))] = "flow",
    on: Annotated[str, typer.Option(help="Public images to train on: phantom or textures.")] = "phantom",
    steps: Annotated[int, typer.Option(min=1, max=1_000_000, help="Optimiser steps.")] = 500,
    patients: Annotated[int, typer.Option(min=10, max=100_000, help="Fictional patients, or textures, a site.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same images.")] = 0,
) -> None:
    """Train a stage's model on public procedural images, and print what the plan pins it by."""
    from sfumato_server.coordinator.pretraining import pretrain

    weights, losses = pretrain(_plan(plan), stage, on, steps=steps, patients=patients, seed=seed)
    tenth = max(1, len(losses) // 10)
    first, last = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
    console.print(f"loss {first:.4f} in the first {tenth} steps, {last:.4f} in the last", markup=False)
    _write_start(weights, on, stage, out)


@model_app.command(
    "import", epilog="Example: sfumato model import own.safetensors --plan plan.yaml --out start.safetensors"
)
def model_import(
    file: Annotated[Path, typer.Argument(help="Weights of your own, safetensors: names <model>/<parameter>.")],
    plan: Annotated[Path, typer.Option(help="The study plan whose stage will start from these weights.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the weights go, safetensors.")],
    stage: Annotated[str, typer.Option(help=_one_of(_STARTED))] = "flow",
) -> None:
    """Bring a checkpoint into the form of a plan's stage, and print what the plan pins it by."""
    from sfumato_common.generators.starts import read_start

    study = _plan(plan)
    if stage not in _STARTED or stage not in study.candidates:
        raise ConfigError(f"stage '{stage}' is not one of the plan's that start from weights ({', '.join(_STARTED)})")
    _write_start(read_start(study, study.stage(stage), file_bytes(file)), "checkpoint", stage, out)


def _write_start(weights: Arrays, source: str, stage: str, out: Path) -> None:
    """Write the file; say what to put into the plan and where the file goes."""
    from safetensors.numpy import save

    write_atomic(out, save(dict(weights)))
    console.print(
        f"stage '{stage}' of the plan: start: {{source: {source}, sha256: {fingerprint(weights)}}}\n"
        f"then give '{out.name}' to the coordinator: sfumato coordinator init --start FILE",
        markup=False,
        soft_wrap=True,
    )


def _plan(path: Path) -> Plan:
    """The plan in YAML as it was written, or in JSON as the coordinator's home keeps it."""
    if path.suffix != ".json":
        return load_plan(path)
    try:
        value = json.loads(file_bytes(path))
    except ValueError:
        raise ConfigError(f"'{path.name}' is not valid JSON; give the plan as it was written") from None
    return parse(value, Plan, path.name)
