"""`sfumato`: the coordinator's command line, the demo, and the tools for a published data set."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from sfumato_common.command_line import (
    AsJson,
    Fingerprint,
    Log,
    Memory,
    Version,
    ask_fingerprint,
    console,
    file_bytes,
    forecast_json,
    forecast_table,
    print_json,
    run_command,
    say,
)
from sfumato_common.errors import ConfigError
from sfumato_common.files import make_private_folder, write_atomic, write_json
from sfumato_common.progress import busy
from sfumato_common.study.load import load_plan, plan_text
from sfumato_common.study.plan import Plan
from sfumato_common.study.simulated import require_real
from sfumato_server.cli.advise import advise
from sfumato_server.cli.dataset import dataset_app
from sfumato_server.cli.home import Home, keep_costs
from sfumato_server.cli.members import add_commands
from sfumato_server.cli.model import model_app
from sfumato_server.cli.passphrase import PassphraseFile, ask_passphrase
from sfumato_server.cli.plan_new import plan_new
from sfumato_server.cli.run import run_study
from sfumato_server.cli.schema import schema
from sfumato_server.cli.simulate import simulate
from sfumato_server.cli.study import study_app

app = typer.Typer(no_args_is_help=True, help="Sfumato: the coordinator's side.")
coordinator_app = typer.Typer(no_args_is_help=True, help="Set up and run a study.")
plan_app = typer.Typer(no_args_is_help=True, help="Check a study plan, and choose one.")
app.add_typer(coordinator_app, name="coordinator")
app.add_typer(dataset_app, name="dataset")
app.add_typer(plan_app, name="plan")
app.add_typer(study_app, name="study")
app.add_typer(model_app, name="model")
add_commands(coordinator_app)
coordinator_app.command("run", epilog="Example: sfumato coordinator run --home coord --out results --host 10.0.0.5")(
    run_study
)
plan_app.command(
    "advise", epilog="Example: sfumato plan advise configs/demo.yaml --patients 240,960 --sites 3,10 --out advice"
)(advise)
plan_app.command("new", epilog="Example: sfumato plan new plan.yaml --name thorax --sites alder,birch --epsilon 8")(
    plan_new
)
app.command("schema", epilog="Example: sfumato schema plan --out plan.schema.json")(schema)
app.command(epilog="Example: sfumato simulate configs/demo.yaml --sites 3,10,30 --patients 100,300 --out simulated")(
    simulate
)


@app.callback()
def sfumato(version: Version = False, memory: Memory = None, log: Log = None) -> None:
    """Options that stand before any command."""
    from sfumato_common.logs import choose_log
    from sfumato_common.memory import limit_memory

    limit_memory(memory)
    choose_log(log)


@plan_app.command("check", epilog="Example: sfumato plan check configs/demo.yaml")
def plan_check(plan: Annotated[Path, typer.Argument(help="Study plan, YAML.")], as_json: AsJson = False) -> None:
    """Validate a plan, and show what it would cost a patient and what can be told of it before anybody is asked."""
    from sfumato_server.coordinator.foresight import foresee

    study = _loaded(plan, as_json)
    foreseen = foresee(study)
    _affordable(study, as_json, {"foresight": [asdict(one) for one in foreseen]})
    if not as_json:
        for one in foreseen:
            said, style = f"{one.about}: {one.said}", "yellow" if one.state == "poor" else None
            console.print(said, style=style, markup=False, soft_wrap=True)


@plan_app.command("resolve", epilog="Example: sfumato plan resolve configs/demo.yaml --out plan.yaml")
def plan_resolve(
    plan: Annotated[Path, typer.Argument(help="Study plan whose 'budget' stands for the noise, YAML.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the plan goes that sites accept, YAML.")],
) -> None:
    """Compute every stage's noise from the plan's budget and write the whole plan out."""
    study = _loaded(plan)
    _affordable(study)
    write_atomic(out, plan_text(study))
    said = f"'{out.name}' is what init takes and sites accept, plan hash {study.study_digest}"
    say(said)


@coordinator_app.command(
    "init", epilog="Example: sfumato coordinator init --home coord --plan plan.yaml --name coordinator.example"
)
def coordinator_init(
    home: Home,
    plan: Annotated[Path, typer.Option(help="Study plan, YAML.")],
    name: Annotated[list[str] | None, typer.Option(help="Host name or address of this coordinator (repeat).")] = None,
    start: Annotated[list[Path] | None, typer.Option(help="Public weights that the plan pins (repeat).")] = None,
    encoder: Annotated[list[Path] | None, typer.Option(help="File of an encoder of the plan (repeat).")] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make the coordinator's keys and certificates and keep the resolved plan."""
    from sfumato_common.crypto.signatures import fingerprint as fingerprint_of
    from sfumato_common.study.starts import keep_start
    from sfumato_server.coordinator.home import CoordinatorHome
    from sfumato_server.enrol import create_authority
    from sfumato_server.rounds.encoders import keep_encoder, load_encoders
    from sfumato_server.rounds.starts import load_starts

    study = _loaded(plan)
    require_real(study.study, *study.sites)
    _affordable(study)
    make_private_folder(home)
    for path in start or []:
        keep_start(CoordinatorHome(home).starts, study, file_bytes(path))
    for path in encoder or []:
        keep_encoder(CoordinatorHome(home).encoders, study, file_bytes(path))
    # a missing one is better told now than when the sites wait
    load_starts(CoordinatorHome(home).starts, study)
    load_encoders(CoordinatorHome(home).encoders, study)
    authority = create_authority(home, name or [], ask_passphrase(passphrase_file, new=True))
    write_json(CoordinatorHome(home).plan_file, study.model_dump(mode="json"))
    write_atomic(home / "plan.yaml", plan_text(study))
    said = f"coordinator of study '{study.study}' is ready, plan hash {study.study_digest}"
    say(
        f"{said}\nsites accept the 'plan.yaml' in its home\n{_own_hashes(study)}"
        f"fingerprint, to be told to every site by telephone or on paper:\n{fingerprint_of(authority.public_key)}"
    )
    if not name:
        say(
            "note: no --name was given: only sites on this machine can connect, until "
            "'sfumato coordinator rotate --name HOST' gives the ports a certificate with the host's name"
        )


@coordinator_app.command("replan", epilog="Example: sfumato coordinator replan plan.yaml --home coord")
def coordinator_replan(home: Home, plan: Annotated[Path, typer.Argument(help="The plan that comes now.")]) -> None:
    """Put another plan of the same study in place while no site has answered; CA, enrolments and name stay."""
    from sfumato_server.coordinator.home import CoordinatorHome
    from sfumato_server.coordinator.replanning import replace_plan

    study = load_plan(plan)
    _affordable(study)
    before = replace_plan(CoordinatorHome(home), study)
    say(
        f"plan hash {before.study_digest} is replaced by {study.study_digest}. Sites that accepted the former one run "
        f"'sfumato-site unaccept {study.study}', and then accept the 'plan.yaml' of this home"
    )


@coordinator_app.command(
    "enrol", epilog="Example: sfumato coordinator enrol --home coord alder.request.json --grant alder.grant.json"
)
def coordinator_enrol(
    home: Home,
    request: Annotated[Path, typer.Argument(help="A site's enrolment request.")],
    grant: Annotated[Path, typer.Option(help="Where to write the answer.")],
    fingerprint: Fingerprint = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Compare a site's key and sign its request; its SuperNode key is registered when the study starts."""
    from sfumato_common.crypto.enrolment import encode_grant, read_request
    from sfumato_common.crypto.signatures import fingerprint as fingerprint_of
    from sfumato_server.coordinator.home import CoordinatorHome
    from sfumato_server.enrol import enrol, load_authority, require_planned

    data = file_bytes(request)
    wanted, sites = read_request(data), CoordinatorHome(home).plan().sites
    require_planned(wanted.site, sites)  # before anybody takes up the telephone
    whose = f", the pseudonym of '{wanted.holder.site}'" if wanted.holder else ""
    said = ask_fingerprint(fingerprint, f"site '{wanted.site}'{whose}")
    issued = enrol(home, data, said, sites, passphrase=ask_passphrase(passphrase_file))
    write_atomic(grant, encode_grant(issued, load_authority(home).signing_key))
    say(
        f"enrolled; give '{grant.name}' back to the site, and tell it this coordinator's fingerprint by another way:\n"
        f"{fingerprint_of(issued.coordinator_key)}"
    )


@coordinator_app.command("fingerprint", epilog="Example: sfumato coordinator fingerprint --home coord")
def coordinator_fingerprint(home: Home) -> None:
    """Print the fingerprint of this coordinator's key: what sites and researchers compare."""
    from sfumato_common.crypto.signatures import fingerprint as fingerprint_of
    from sfumato_server.enrol import load_authority

    typer.echo(fingerprint_of(load_authority(home).public_key))


@app.command(epilog="Example: sfumato demo --data index.csv --out demo-out")
def demo(
    data: Annotated[Path | None, typer.Option(help="Index CSV of real images; without it the phantom cohort.")] = None,
    out: Annotated[Path, typer.Option(help="Where the demo leaves its results.")] = Path("demo-out"),
    configs: Annotated[Path, typer.Option(help="Folder of demo.yaml, chest-xray.yaml, policy.yaml.")] = Path("configs"),
    patients: Annotated[
        int | None, typer.Option(min=1, help="Phantom patients a site (1000; with a size 300).")
    ] = None,
    modality: Annotated[str, typer.Option(help="What the phantoms are: chest or fundus.")] = "chest",
    size: Annotated[int | None, typer.Option(help="The plan MODALITY-SIZE.yaml of the folder, not demo.yaml.")] = None,
    review: Annotated[
        bool, typer.Option("--review", help="Let the first site's release wait for your decision.")
    ] = False,
) -> None:
    """Run a whole federation on this machine: coordinator, SuperLink and sites, each in processes of its own."""
    from sfumato_server.demo.run import run_demo

    run_demo(data, out, configs, patients, modality, size, review)


def _own_hashes(plan: Plan) -> str:
    """The plan's hash at each site, which 'accept' prints there; nothing where it is the same for all."""
    if not plan.joining:
        return ""
    return "".join(f"plan hash at '{site}': {plan.digest_at(site)}\n" for site in sorted(plan.sites))


def _loaded(path: Path, quiet: bool = False) -> Plan:
    """The plan of a file, whose noise is searched where it has a budget for it."""
    keep_costs()
    with busy("noise for the budget", quiet):
        return load_plan(path)


def _affordable(plan: Plan, as_json: bool = False, more: dict[str, Any] | None = None) -> None:
    """Print the forecast; a plan that costs more than it says is a ConfigError."""
    from sfumato_common.study.forecast import forecast

    with busy("accounting", as_json):
        cost = forecast(plan, plan.privacy.delta)
    if as_json:
        allowed = {"epsilon": plan.privacy.epsilon, "delta": plan.privacy.delta}
        print_json(
            {
                **forecast_json(cost),
                "study": plan.study,
                "plan_hash": plan.study_digest,
                "budget": allowed,
                **(more or {}),
            }
        )
    else:
        console.print(forecast_table(cost, f"Plan '{plan.study}'"))
    if not plan.private:
        return  # the table says so; whether a site takes part is for its own policy to say
    worst = max(cost.epsilon_train, cost.epsilon_holdout)
    if worst > plan.privacy.epsilon:
        raise ConfigError(
            f"the stages cost epsilon {worst:.3f} at delta {plan.privacy.delta:g}, more than privacy.epsilon = "
            f"{plan.privacy.epsilon:g}; raise the noise multipliers or take fewer steps"
        )


def main() -> None:
    """Entry point of `sfumato`."""
    run_command(app)
