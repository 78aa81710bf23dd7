"""`sfumato study`: how a study stands, from any terminal of the coordinator's machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfumato_common.command_line import AsJson, Once, print_json, say, show_status
from sfumato_server.cli.home import Home
from sfumato_server.cli.versions import add_commands

study_app = typer.Typer(no_args_is_help=True, help="Watch a study, admit sites to it, and prepare its next version.")
add_commands(study_app)


@study_app.command("status", epilog="Example: sfumato study status --home coord --once")
def status(home: Home, once: Once = False, as_json: AsJson = False) -> None:
    """Show stages, sites, epsilon, bytes, time left and what to do next; live, or once, also when nothing runs."""
    from sfumato_server.coordinator.home import CoordinatorHome
    from sfumato_server.status.overview import overview
    from sfumato_server.status.view import render

    current = CoordinatorHome(home).plan
    show_status(lambda: overview(home, current()), render, once, as_json)


@study_app.command(
    "admit", epilog="Example: sfumato study admit dahlia --home coord --nominal-patients 300 --plan dahlia.yaml"
)
def admit(
    home: Home,
    site: Annotated[str, typer.Argument(help="The name of the site that joins.")],
    nominal_patients: Annotated[int, typer.Option(help="Its nominal training patients: agreed, never counted.")],
    plan: Annotated[Path, typer.Option(help="Where the plan goes that this site accepts, YAML.")],
) -> None:
    """Add a site to a study whose plan says 'joining: later', also while it runs; then enrol it as any other."""
    from sfumato_common.files import write_atomic
    from sfumato_common.study.load import plan_text
    from sfumato_server.coordinator.admitting import admit_site
    from sfumato_server.coordinator.home import CoordinatorHome

    own = admit_site(CoordinatorHome(home), site, nominal_patients)
    write_atomic(plan, plan_text(own))
    say(
        f"'{site}' is in the plan; give it '{plan.name}', plan hash {own.digest}, and take its enrolment request: "
        "it is asked from the next exchange on, and pays for nothing before"
    )


@study_app.command(
    "dossier", epilog="Example: sfumato study dossier --home coord --set coord-out/published --out dossier"
)
def dossier(
    home: Home,
    published: Annotated[Path, typer.Option("--set", help="The published set, a folder with a manifest.json.")],
    out: Annotated[Path, typer.Option(help="Folder for dossier.html and dossier.json.")] = Path("dossier"),
    as_json: AsJson = False,
) -> None:
    """Fill an impact assessment and five frameworks from signed evidence; what is not shown is said first."""
    from sfumato_common.evidence.dossier import make_dossier
    from sfumato_common.evidence.page import write_dossier
    from sfumato_server.coordinator.dossier import coordinator_facts
    from sfumato_server.coordinator.home import CoordinatorHome

    made = make_dossier(coordinator_facts(CoordinatorHome(home), published))
    write_dossier(made, out)
    if as_json:
        print_json(made.model_dump(mode="json"))
        return
    say(made.summary(out))
