"""`sfumato model pretrain`: training on public images, of what a stage starts from and of a codec."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfumato_common.command_line import file_bytes, say
from sfumato_common.errors import ConfigError
from sfumato_common.files import write_atomic
from sfumato_common.strict import parse
from sfumato_server.cli.starts import PRETRAINED, one_of, read_plan, write_start

if TYPE_CHECKING:
    from sfumato_common.codec.form import CodecConfig, Score
    from sfumato_common.codec.training import Step
    from sfumato_common.study.plan import Plan
    from sfumato_common.types import Arrays

SHEET = "sheet.png"
_TOLD = 0.05  # of a training, between two lines
_SHOWN = 8


pretrain_app = typer.Typer(no_args_is_help=True, help="Train on public images: a start, or a codec.")


@pretrain_app.command(
    "start", epilog="Example: sfumato model pretrain start plan.yaml --out start.safetensors --stage flow --on phantom"
)
def pretrain_start(
    plan: Annotated[Path, typer.Argument(help="The study plan whose stage will start from these weights.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the weights go, safetensors.")],
    stage: Annotated[str, typer.Option(help=one_of(PRETRAINED))] = "flow",
    on: Annotated[str, typer.Option(help="Public images to train on: phantom or textures.")] = "phantom",
    steps: Annotated[int, typer.Option(min=1, max=1_000_000, help="Optimiser steps.")] = 500,
    patients: Annotated[int, typer.Option(min=10, max=100_000, help="Fictional patients, or textures, a site.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same images.")] = 0,
    codec: Annotated[
        Path | None, typer.Option(help="Of a plan that begins with a pinned codec, its 'codec.safetensors'.")
    ] = None,
) -> None:
    """Train a stage's model on public procedural images, and print what the plan pins it by."""
    from sfumato_server.coordinator.pretraining import pretrain

    study = read_plan(plan)
    network = _pinned_codec(study, codec)
    weights, losses = pretrain(study, stage, on, steps=steps, patients=patients, seed=seed, network=network)
    tenth = max(1, len(losses) // 10)
    first, last = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
    say(f"loss {first:.4f} in the first {tenth} steps, {last:.4f} in the last")
    write_start(weights, on, stage, out)


def _pinned_codec(plan: Plan, codec: Path | None) -> Arrays | None:
    """The weights that the plan's first stage pins. Raises ConfigError where they are missing or not asked for."""
    from sfumato_common.generators.starts import check_start, read_start

    first = plan.stage(plan.base)
    if first.public_start is None:
        if codec is not None:
            raise ConfigError("the plan's first stage pins no codec; leave '--codec' out")
        return None
    if codec is None:
        raise ConfigError("the plan begins with a pinned codec; name its 'codec.safetensors' by '--codec'")
    weights = read_start(plan, first, file_bytes(codec))
    check_start(first.public_start, weights)
    return weights


@pretrain_app.command(
    "codec", epilog="Example: sfumato model pretrain codec --on phantom --out codec --size 64 --numbers 256 --minutes 5"
)
def pretrain_codec(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for config.json, codec.safetensors and a sheet.")],
    on: Annotated[
        list[str], typer.Option(help="Public images: phantom, an .npz, an index .csv, or a folder. May be repeated.")
    ],
    site: Annotated[
        list[str] | None, typer.Option(help="Of an index, only these sites' rows. May be repeated.")
    ] = None,
    licence: Annotated[str, typer.Option(help="Under which licence the images are public, and whose they are.")] = "",
    size: Annotated[int, typer.Option(help="Pixels a side.")] = 128,
    channels: Annotated[int, typer.Option(help="1 for grey, 3 for colour.")] = 1,
    numbers: Annotated[int, typer.Option(help="Numbers of a code, a channel.")] = 1024,
    kept: Annotated[int, typer.Option(help="Cosines a channel that pass as they are.")] = 512,
    width: Annotated[int, typer.Option(help="Width of the networks; 128 is for an accelerator.")] = 48,
    blocks: Annotated[int, typer.Option(help="Residual blocks of the decoder; the encoder has half as many.")] = 8,
    losses: Annotated[
        str, typer.Option(help="Weights of losses, such as pixel=1,energy=0.002; those not named are 0.")
    ] = "",
    minutes: Annotated[float | None, typer.Option(min=0.01, help="End after so many minutes.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="End after so many steps.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images a step.")] = 16,
    go_on: Annotated[
        Path | None, typer.Option("--from", help="Go on from this codec, in its form; with its own sources and seed.")
    ] = None,
    patients: Annotated[int, typer.Option(min=4, help="Fictional patients, of the phantom.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same images.")] = 0,
) -> None:
    """Train an autoencoder on public images, never on a study's patients; score it on a tenth that it did not see."""
    from sfumato_common.codec.folder import read_codec, write_codec
    from sfumato_common.codec.form import CodecForm, LossWeights
    from sfumato_common.codec.public_images import PHANTOM, read_public
    from sfumato_common.codec.training import Budget
    from sfumato_server.coordinator import codec as coordinator

    if minutes is None and steps is None:
        raise ConfigError("say how long to train: --minutes or --steps")
    if not licence and set(on) != {PHANTOM}:
        raise ConfigError("say under which licence the images are public: --licence; a codec is never of patients")
    shape: dict[str, Any] = {"size": size, "channels": channels, "cosines": numbers, "kept": kept, "width": width}
    start = read_codec(go_on) if go_on else None
    form = parse({**shape, "encoder_blocks": max(1, blocks // 2), "decoder_blocks": blocks}, CodecForm, "codec")
    form = start[1].form if start else form
    weights = parse(_weights(losses), LossWeights, "--losses") if losses else LossWeights()
    public = read_public(on, form.size, form.channels, patients=patients, seed=seed, sites=site or ())
    budget = Budget(steps, None if minutes is None else 60.0 * minutes, batch)
    made, config, held = coordinator.pretrain_codec(
        form, weights, public, budget, seed, licence or "drawn by Sfumato: nobody's", _teller(), start
    )
    write_codec(out, made, config)
    shown = held[:_SHOWN]
    drawn = coordinator.cosines(shown, form.numbers), coordinator.reconstruct(made, shown)
    write_atomic(out / SHEET, coordinator.sheet(shown, *drawn))
    _report(config, out)


def _weights(text: str) -> dict[str, float]:
    """`name=number,...`; what is not named is off, the noise of codes apart."""
    found = {"pixel": 0.0}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            raise ConfigError("--losses is a list such as pixel=1,gradient=0.5") from None
    return found


def _teller() -> Callable[[Step], None]:
    """Prints a line whenever another twentieth of the training is over."""
    told = [0.0]

    def tell(step: Step) -> None:
        if step.progress >= told[0]:
            told[0] = step.progress + _TOLD
            say(f"{step.progress:4.0%}  step {step.number:6d}  {step.psnr:.2f} dB in training")

    return tell


def _report(config: CodecConfig, out: Path) -> None:
    found = config.report
    show_scores(found.codec, found.cosines, config.form.numbers)
    say(
        f"on {found.held_out_images} public images of patients kept apart, after {found.steps} steps. In '{out.name}'; "
        f"a plan pins it by sha256 {config.weights_sha256}"
    )


def show_scores(codec: Score, cosines: Score, numbers: int) -> None:
    """A line of each."""
    for name, score in (("codec", codec), (f"{numbers} cosines", cosines)):
        say(f"{name}: {score.psnr:.2f} dB, fine correlation {score.fine:.3f}, gradient energy {score.energy:.0%}")
