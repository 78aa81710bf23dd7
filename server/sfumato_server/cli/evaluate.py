"""`sfumato dataset evaluate`: what a published set is worth, on real images of whoever asks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from sfumato_common.command_line import AsJson, complaints, console, print_json, say
from sfumato_common.files import write_atomic, write_json

# a command line loads no network before one is needed: the room of `evaluate` is imported in the function
_AT_COORDINATOR = (
    "this machine is a coordinator's: real images of patients have no place here; where these are a hospital's, stop, "
    "and evaluate there"
)
# how real images are read
ImageFolder = Annotated[
    Path | None, typer.Option("--folder", help="The folder of the CSV's files, DICOM too; else that of the CSV.")
]
Words = Annotated[
    list[str] | None,
    typer.Option("--map", help="WORD=LABEL: what a word of the CSV means; WORD= leaves such images out (repeat)."),
]
Allowed = Annotated[
    list[str] | None,
    typer.Option(help="DICOM objects taken only by name: a modality, burned-in, scanned, for-processing (repeat)."),
]
Holdout = Annotated[
    float, typer.Option(min=0.0, max=0.9, help="Share of patients who test, where the CSV has no column split.")
]
Readers = Annotated[int, typer.Option(help="How many processes read real images.")]


def dataset_evaluate(
    folder: Annotated[Path, typer.Argument(help="A published data set.")],
    real: Annotated[
        Path,
        typer.Option(
            help="CSV of your real images: file[, frame] (or set,row), label, patient, split[, site, sex, age]."
        ),
    ],
    images: ImageFolder = None,
    word: Words = None,
    allow: Allowed = None,
    holdout: Holdout = 0.0,
    workers: Readers = 1,
    split: Annotated[Literal["test", "val"], typer.Option(help="Whose patients test.")] = "test",
    figures: Annotated[str, typer.Option(help="Some figures alone, by name, separated by commas; else all.")] = "",
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Trainings of each classifier.")] = 3,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="About how long to train; else as long as the classifiers need.")
    ] = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            help="A feature space: efficientnet-lite0, or a YAML that names weights by file and sha256 (repeat)."
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="A column of the CSV that nothing is to read (repeat).")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="The real images are public: figures may be shown.")] = False,
    by: Annotated[str, typer.Option(help="Who measures, to be said beside the figures.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="One classifier of seconds, which only ranks.")] = False,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where classifiers train: auto, cpu or cuda.")
    ] = "auto",
    out: Annotated[Path | None, typer.Option(help="Where all figures go, JSON.")] = None,
    html: Annotated[bool, typer.Option("--html", help="Also write them as a page, beside --out.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train on the set, test on your real patients: utility, calibration, groups, likeness, memorisation, diversity."""
    from sfumato_server.evaluate import QUICK, STEPS, Reading, Settings, device_of, evaluate
    from sfumato_server.evaluate.encoders import read_encoders
    from sfumato_server.evaluate.page import page
    from sfumato_server.evaluate.reading import meaning_of
    from sfumato_server.evaluate.shown import tables
    from sfumato_server.publish import UNVERIFIED
    from sfumato_server.workers import Where

    if os.environ.get("SFUMATO_COORDINATOR_HOME"):
        complaints.print(f"warning: {_AT_COORDINATOR}", style="yellow", markup=False, soft_wrap=True)
    encoders = read_encoders(encoder or [])
    steps = QUICK if quick else STEPS
    settings = Settings(
        split, seeds, minutes, public=public, by=by, steps=steps, encoders=encoders, device=device_of(device)
    )
    chosen = [name.strip() for name in figures.split(",") if name.strip()]
    where = Where(workers)
    where.check()
    reading = Reading(images, ignore or [], meaning_of(word or []), allow or [], holdout, where)
    report = evaluate(folder, real, settings, chosen, reading, lambda line: complaints.print(line, markup=False))
    target = out or Path("evaluation.json")
    if out or html:
        write_json(target, report.as_json())
    if html:
        write_atomic(target.with_suffix(".html"), page(report))
    if as_json:
        print_json(report.as_json())
        return
    for table in tables(report):
        console.print(table)
    for notice in report.notices:
        say(notice)
    say(f"{UNVERIFIED}: run 'sfumato dataset verify' with --key")
