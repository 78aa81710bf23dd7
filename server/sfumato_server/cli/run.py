"""`sfumato coordinator run`: one study, from first connection to published set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sfumato_common.command_line import say
from sfumato_server.cli.home import Home
from sfumato_server.cli.shard_workers import On, RayAddress, ShardWorkers, shard_workers
from sfumato_server.rounds.deadlines import REVIEW_HOURS, WORK_HOURS
from sfumato_server.workers.tasks import PROCESSES


def run_study(
    home: Home,
    out: Annotated[Path, typer.Option(help="Where the published set and the report go.")],
    host: Annotated[str, typer.Option(help="Address on which hospitals reach this coordinator.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The one port that hospitals reach.")] = 8443,
    deadline: Annotated[
        float | None, typer.Option(help="Seconds to wait for a site that is away; at least the plan's.")
    ] = None,
    page_port: Annotated[
        int | None, typer.Option(help="Port on 127.0.0.1 of the live page and of /metrics for Prometheus; else none.")
    ] = None,
    work_hours: Annotated[float, typer.Option(min=0.0, help="Hours to wait for a site that works.")] = WORK_HOURS,
    review_hours: Annotated[
        float, typer.Option(min=0.0, help="Hours to wait for a site that says that its stewards have the release.")
    ] = REVIEW_HOURS,
    workers: ShardWorkers = 1,
    on: On = PROCESSES,
    ray_address: RayAddress = None,
    only_copy: Annotated[
        bool, typer.Option("--only-copy", help="Say that no other copy of this home runs, or ever will.")
    ] = False,
) -> None:
    """Run the study: wait for the sites, train, collect the releases, publish."""
    from sfumato_server.coordinator.home import CoordinatorHome
    from sfumato_server.coordinator.run import Listen, run_coordinator
    from sfumato_server.enrol import address_notes, expiry_notes
    from sfumato_server.status.overview import overview
    from sfumato_server.status.view import live_status

    current = CoordinatorHome(home).plan
    plan = current()
    for note in address_notes(home, host):
        say(note)
    for note in expiry_notes(home, plan.sites):
        say(f"{note}; see 'sfumato coordinator renew' and 'rotate'")
    with live_status(lambda: overview(home, current())) as refresh:
        published = run_coordinator(
            home,
            out,
            Listen(host, port, page_port),
            refresh,
            deadline_s=deadline,
            work_hours=work_hours,
            where=shard_workers(workers, on, ray_address),
            review_hours=review_hours,
            only_copy=only_copy,
        )
    say(f"published: {published}\nreport: {published / 'report.html'}")
    for site, reason in sorted(json.loads((out / "run.json").read_text())["left_out"].items()):
        say(f"left out: {site}: {reason}")
