"""Flower's entry into the coordinator: the ServerApp runs the study of the home that the SuperLink was started with."""

from __future__ import annotations

import os
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from sfumato_server.coordinator.flower_channel import FlowerChannel
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.coordinator.study import run_study
from sfumato_server.enrol import Registry

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the study; `context.run_config` is not read: everything comes from the coordinator's own home."""
    del context
    home = CoordinatorHome(Path(os.environ["SFUMATO_COORDINATOR_HOME"]))
    channel = FlowerChannel(grid, home.nodes, Registry(home.root).in_force, home.deadlines().work_s)
    run_study(home, channel)
