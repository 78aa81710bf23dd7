"""`sfumato-site style-net`: weights of k-SALSA's style net, fitted once to images of one's choice and kept here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfumato_client.cli.home import Home
from sfumato_common.command_line import file_bytes, say
from sfumato_common.count_text import count_text
from sfumato_common.errors import DataError
from sfumato_common.files import write_atomic
from sfumato_common.study.load import load_resolved_plan

style_net_app = typer.Typer(no_args_is_help=True, help="The network in whose features k-SALSA compares images.")
StudyPlan = Annotated[Path, typer.Option("--plan", help="The study plan: image size and channels come from it.")]


@style_net_app.command(
    "fit", epilog="Example: sfumato-site style-net fit source.yaml --plan plan.yaml --out style-net.safetensors"
)
def fit(
    source: Annotated[Path, typer.Argument(help="Description of the images to learn from, YAML, as for 'ingest'.")],
    plan: StudyPlan,
    out: Annotated[Path, typer.Option(help="The safetensors file to write.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps of Adam.")] = 500,
) -> None:
    """Fit a style net to images, without labels: public ones, say, of which there are more than patients here."""
    import numpy as np
    import torch

    from sfumato_client.anonymise.self_supervised import train
    from sfumato_client.anonymise.style_net import encode_style_net
    from sfumato_client.dataset import Cohort
    from sfumato_client.ingest import SiteImage, load_source, read_source

    study = load_resolved_plan(plan)
    read = list(read_source(load_source(source), study.image, study.labels))
    found = [image for image in read if isinstance(image, SiteImage)]
    if not found:
        raise DataError("no image of that source could be read; 'sfumato-site ingest' says why, file by file")
    patient_index = np.unique([image.patient_id for image in found], return_inverse=True)[1].astype(np.int64)
    cohort = Cohort(np.stack([image.pixels for image in found]), np.zeros(len(found), dtype=np.int64), patient_index)
    net = train(cohort, steps, torch.Generator().manual_seed(0))
    write_atomic(out, encode_style_net(net), mode=0o600)
    say(
        f"fitted to {count_text(len(found), 'image')} ({len(read) - len(found)} could not be read); it is made from "
        "them, so it may leave this machine only if they may"
    )


@style_net_app.command(
    "use", epilog="Example: sfumato-site style-net use --home site style-net.safetensors --plan plan.yaml"
)
def use(
    home: Home,
    weights: Annotated[Path, typer.Argument(help="A file that 'style-net fit' wrote.")],
    plan: StudyPlan,
) -> None:
    """Keep weights in the home folder: from now on every k-SALSA release of this site compares images by them."""
    from sfumato_client.anonymise.style_net import read_style_net
    from sfumato_client.site.home import SiteHome

    data = file_bytes(weights)
    read_style_net(data, load_resolved_plan(plan).image)
    write_atomic(SiteHome(home).style_net, data, mode=0o600)
    say("kept; 'sfumato-site style-net drop' takes it back")


@style_net_app.command("drop", epilog="Example: sfumato-site style-net drop --home site")
def drop(home: Home) -> None:
    """Forget given weights: every release trains its own style net again."""
    from sfumato_client.site.home import SiteHome

    kept = SiteHome(home).style_net
    there = kept.exists()
    kept.unlink(missing_ok=True)
    say("dropped" if there else "there was none")
