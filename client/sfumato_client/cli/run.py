"""`sfumato-site run`: the site's node and worker, and what its people see of them."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from sfumato_client.cli.home import Home, Study
from sfumato_common.command_line import say


def run(
    home: Home,
    study: Study = "",
    devices: Annotated[
        int, typer.Option(min=0, max=64, help="Devices that share a training step; 0: all CUDA devices, or the CPU.")
    ] = 0,
    launcher: Annotated[
        str, typer.Option(help="Command line that starts a job for each question: 'srun --gres=gpu:1 {command}'.")
    ] = "",
) -> None:
    """Join the federation and answer the coordinator until stopped (Ctrl-C); says all the while how the site stands."""
    from sfumato_client.cli.live import live_site
    from sfumato_client.flower.node import run_node

    run_node(home, say, study, devices, launcher, partial(live_site, home, study))
