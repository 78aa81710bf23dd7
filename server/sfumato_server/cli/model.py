"""`sfumato model`: what a checkpoint is and cost, images drawn from it, and weights for stages to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sfumato_common.command_line import AsJson, console, file_bytes, print_json, say
from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.files import write_atomic
from sfumato_server.cli.pretrain import pretrain_app, show_scores
from sfumato_server.cli.starts import STARTED, one_of, read_plan, write_start

model_app = typer.Typer(no_args_is_help=True, help="Look into a checkpoint, draw images from it, make a stage's start.")
File = Annotated[Path, typer.Argument(help="A checkpoint or a final model, safetensors.")]
SHEET = "sheet.png"
model_app.add_typer(pretrain_app, name="pretrain")


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
    model: Annotated[str, typer.Option(help="Which model of the file: its own stage's, or the first stage's.")] = "",
    label: Annotated[str, typer.Option(help="Draw this class only; otherwise by the model's own shares.")] = "",
    site: Annotated[str, typer.Option(help="Draw for this site only, where the plan fits sites apart.")] = "",
    count: Annotated[int, typer.Option(min=1, max=100_000, help="How many images.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same images.")] = 0,
) -> None:
    """Draw images from a model: post-processing, so that no epsilon is spent. Writes PNG files and a contact sheet."""
    from sfumato_common.imaging import encode_png
    from sfumato_common.pictures import COLUMNS, grid, png
    from sfumato_server.rounds.draws import draw_model

    drawn = draw_model(file, read_plan(plan), model, label, site, count, seed)
    for number, (image, name) in enumerate(zip(drawn.images, drawn.names, strict=True)):
        write_atomic(out / f"{drawn.kind}-{name}-{number:05d}.png", encode_png(image))
    write_atomic(out / SHEET, png(grid(drawn.images[: COLUMNS * COLUMNS], COLUMNS)))
    card = drawn.card
    cost = "no differential privacy" if card.epsilon is None else f"epsilon {card.epsilon:.3f} at delta {card.delta:g}"
    say(
        f"{len(drawn.images)} images of model '{drawn.kind}' after round {card.round} of {card.rounds} of stage "
        f"'{card.stage}' ({cost}, paid in training), and the contact sheet '{SHEET}'"
    )


@model_app.command(
    "import", epilog="Example: sfumato model import own.safetensors --plan plan.yaml --out start.safetensors"
)
def model_import(
    file: Annotated[Path, typer.Argument(help="Weights of your own, safetensors: names <model>/<parameter>.")],
    plan: Annotated[Path, typer.Option(help="The study plan whose stage will start from these weights.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the weights go, safetensors.")],
    stage: Annotated[str, typer.Option(help=one_of(STARTED))] = "flow",
) -> None:
    """Bring a checkpoint into the form of a plan's stage, and print what the plan pins it by."""
    from sfumato_common.generators.starts import read_start

    study = read_plan(plan)
    if stage not in STARTED or stage not in study.candidates:
        raise ConfigError(f"stage '{stage}' is not one of the plan's that start from weights ({', '.join(STARTED)})")
    write_start(read_start(study, study.stage(stage), file_bytes(file)), "checkpoint", stage, out)


@model_app.command(
    "reconstruct", epilog="Example: sfumato model reconstruct codec --on phantom --out sheet.png --patients 20"
)
def model_reconstruct(
    codec: Annotated[Path, typer.Argument(help="Folder of a codec, or of a published AutoencoderKL (diffusers).")],
    on: Annotated[
        list[str], typer.Option(help="Public images: phantom, an .npz, an index .csv, or a folder. May be repeated.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the sheet goes: images, cosines, codec; PNG.")],
    sha256: Annotated[str, typer.Option(help="Refuse any other codec; of AutoencoderKL, the safetensors file's.")] = "",
    site: Annotated[
        list[str] | None, typer.Option(help="Of an index, only these sites' rows. May be repeated.")
    ] = None,
    size: Annotated[int, typer.Option(help="Pixels a side, for AutoencoderKL; a codec has its own.")] = 128,
    channels: Annotated[int, typer.Option(help="1 for grey, 3 for colour; for AutoencoderKL.")] = 1,
    patients: Annotated[int, typer.Option(min=4, help="Fictional patients, of the phantom.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of the phantom's patients; other ones than were trained on.")] = 1,
) -> None:
    """Score a codec on public images beside as many plain cosines, and draw a sheet of the first ones."""
    from sfumato_common.codec.public_images import read_public
    from sfumato_common.pictures import COLUMNS
    from sfumato_server.coordinator.codec import cosines, read_coder, score, sheet

    coder = read_coder(codec, sha256 or None, size, channels)
    images = read_public(on, coder.size, coder.channels, patients=patients, seed=seed, sites=site or ()).images
    made, plain = coder.reconstruct(images), cosines(images, coder.numbers)
    show_scores(score(images, made), score(images, plain), coder.numbers)
    write_atomic(out, sheet(images[:COLUMNS], plain[:COLUMNS], made[:COLUMNS]))
