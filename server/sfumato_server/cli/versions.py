"""`sfumato study rerelease | withdraw | status-file`: the versions of a study's published set."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from sfumato_common.command_line import AsJson, print_json, say
from sfumato_common.errors import ConfigError
from sfumato_common.study.lineage import Why
from sfumato_common.study.load import load_plan
from sfumato_server.cli.home import Home, keep_costs

Sites = list[str] | None
WHY: tuple[str, ...] = get_args(Why)
Out = Annotated[Path | None, typer.Option(help="Where a copy of the file goes, to be hosted.")]


def rerelease(
    home: Home,
    out: Annotated[Path | None, typer.Option(help="The home of the next version, which is made.")] = None,
    left: Annotated[Sites, typer.Option(help="A site that takes no further part; its images stay (repeat).")] = None,
    withdrew: Annotated[Sites, typer.Option(help="A site whose images are to go (repeat).")] = None,
    again: Annotated[Sites, typer.Option(help="A site that is asked again, as its data changed (repeat).")] = None,
    patient_withdrew: Annotated[
        Sites, typer.Option(help="As --again, and the set says in public that a patient withdrew there (repeat).")
    ] = None,
    join: Annotated[Sites, typer.Option(help="SITE=PATIENTS: a site that joins, nominal patients (repeat).")] = None,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train the models again.")] = False,
    why: Annotated[str, typer.Option(help=f"Said in public of whoever left or withdrew: {', '.join(WHY)}.")] = WHY[-1],
    plan: Annotated[Path | None, typer.Option(help="What to release now: a plan of the same set, YAML.")] = None,
    published: Annotated[Path | None, typer.Option(help="The earlier set, where the home does not know it.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and make nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Prepare the next version: list what stays, what is made again and what that costs; then make its home."""
    from sfumato_server.coordinator.home import CoordinatorHome
    from sfumato_server.coordinator.rerelease import Changes, make_home, plan_rerelease

    if out is None and not dry_run:
        raise ConfigError("--out names the home of the next version; --dry-run makes none")
    keep_costs()
    old = CoordinatorHome(home)
    changes = Changes(
        tuple(left or ()),
        tuple(withdrew or ()),
        tuple(again or ()),
        tuple(patient_withdrew or ()),
        _joins(join),
        retrain,
        why,
    )
    made = plan_rerelease(old, _previous(old, published), changes, load_plan(plan) if plan else None)
    if out is not None and not dry_run:
        make_home(old, out, made)
    if as_json:
        print_json({"plan_hash": made.plan.study_digest, "lines": [asdict(line) for line in made.lines]})
        return
    for line in made.lines:
        epsilon = "infinite" if line.epsilon is None else f"{line.epsilon:g}"
        who = line.who or "models"
        cost = f"epsilon {epsilon} at delta {line.delta:g} a patient, add/remove, of this version alone"
        say(f"{who}: {line.what}; {line.ground}; {cost}")
    assert made.plan.lineage is not None
    what = f"version {made.plan.lineage.version} of study '{made.plan.study}', plan hash {made.plan.study_digest}"
    end = "nothing was made" if dry_run or out is None else f"'{out.name}' is its home; sites accept its 'plan.yaml'"
    say(f"{what}: {end}")


def withdraw(
    home: Home,
    version: Annotated[int, typer.Option(min=1, help="Which version is withdrawn.")],
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Say in the signed status file that a published version is withdrawn."""
    from sfumato_server.coordinator.home import CoordinatorHome
    from sfumato_server.enrol import load_authority
    from sfumato_server.enrol.copies import require_only
    from sfumato_server.publish.versions import withdraw_version

    require_only(home)
    withdraw_version(CoordinatorHome(home).versions_file, load_authority(home), version)
    status_file(home, out, as_json)


def status_file(home: Home, out: Out = None, as_json: AsJson = False) -> None:
    """Show, and copy out, the signed file that says how each published version stands."""
    from sfumato_common.files import write_atomic
    from sfumato_server.coordinator.home import CoordinatorHome
    from sfumato_server.enrol import load_authority
    from sfumato_server.publish.versions import read_status, standing_lines

    file = CoordinatorHome(home).versions_file
    if not file.exists():
        raise ConfigError("nothing was published from this home yet; 'sfumato coordinator run' publishes")
    data = file.read_bytes()
    found = read_status(data, load_authority(home).public_key)
    if out is not None:
        write_atomic(out, data)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    for one in found.versions:
        first, *stones = standing_lines(one)
        lines = (f"{first}, manifest {one.manifest_sha256}", *stones)
        say("\n".join(lines))


def add_commands(app: typer.Typer) -> None:
    """The commands, under `sfumato study`."""
    app.command("rerelease", epilog="Example: sfumato study rerelease --home coord --again alder --out coord-2")(
        rerelease
    )
    app.command("withdraw", epilog="Example: sfumato study withdraw --home coord --version 1 --out status.json")(
        withdraw
    )
    app.command("status-file", epilog="Example: sfumato study status-file --home coord --out status.json")(status_file)


def _joins(given: Sites) -> dict[str, int]:
    """Nominal patients by site from SITE=PATIENTS words. Raises ConfigError."""
    found: dict[str, int] = {}
    for word in given or []:
        name, equals, patients = word.partition("=")
        if not equals or name in found or not patients.isdecimal():
            raise ConfigError("--join takes SITE=PATIENTS, once for each site that joins")
        found[name] = int(patients)
    return found


def _previous(old: Any, published: Path | None) -> str:
    """sha256 of the manifest of the version that is to be replaced: the current one, or what the caller names."""
    from sfumato_server.enrol import load_authority
    from sfumato_server.publish.versions import manifest_sha256, read_status

    if published is not None:
        return manifest_sha256(published)
    if not old.versions_file.exists():
        raise ConfigError("this home does not say what it published; name the earlier set with --published")
    found = read_status(old.versions_file.read_bytes(), load_authority(old.root).public_key)
    return found.versions[-1].manifest_sha256
