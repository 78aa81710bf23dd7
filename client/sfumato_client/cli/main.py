"""`sfumato-site`: the hospital's command line, from first key to running node."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path
from typing import Annotated

import typer

from sfumato_client.cli.checking import check
from sfumato_client.cli.dossier import dossier
from sfumato_client.cli.erasing import erase_store
from sfumato_client.cli.gate import gate
from sfumato_client.cli.home import Home, StoreKey, Study
from sfumato_client.cli.ingest import ingest
from sfumato_client.cli.ledger import ledger_app
from sfumato_client.cli.lifecycle import add_commands as add_lifecycle
from sfumato_client.cli.new import policy_app, source_app
from sfumato_client.cli.pacs import pacs_app
from sfumato_client.cli.panels import arrange
from sfumato_client.cli.pseudonym import pseudonym, tell_request
from sfumato_client.cli.review import approve, queue, refuse, review, steward_app
from sfumato_client.cli.run import run
from sfumato_client.cli.schema import schema
from sfumato_client.cli.status import status
from sfumato_client.cli.style_net import style_net_app
from sfumato_client.cli.tabular import tabular
from sfumato_common.command_line import (
    Fingerprint,
    Log,
    Memory,
    Version,
    ask_fingerprint,
    console,
    file_bytes,
    forecast_table,
    keep_epsilons,
    require_address,
    run_command,
    say,
)
from sfumato_common.errors import PolicyRefusal
from sfumato_common.files import make_private_folder, write_atomic, write_json
from sfumato_common.progress import busy
from sfumato_common.strict import load_yaml
from sfumato_common.study.load import load_resolved_plan
from sfumato_common.study.policy import Policy
from sfumato_common.study.simulated import require_real

app = typer.Typer(no_args_is_help=True, help="Sfumato at the hospital.")
app.add_typer(ledger_app, name="ledger")
app.add_typer(pacs_app, name="pacs")
app.add_typer(policy_app, name="policy")
app.add_typer(source_app, name="source")
app.add_typer(style_net_app, name="style-net")
app.command("check", epilog="Example: sfumato-site check --home site source.yaml --plan plan.yaml")(check)
app.command("dossier", epilog="Example: sfumato-site dossier --home site thorax --out dossier")(dossier)
app.command("erase-store", epilog="Example: sfumato-site erase-store --home site")(erase_store)
app.command("gate", epilog="Example: sfumato-site gate --home site --dry-run")(gate)
app.command("ingest", epilog="Example: sfumato-site ingest --home site source.yaml --plan plan.yaml")(ingest)
app.command("pseudonym", epilog="Example: sfumato-site pseudonym --home site --study lungs")(pseudonym)
app.add_typer(steward_app, name="steward")
app.command("queue", epilog="Example: sfumato-site queue --home site")(queue)
app.command("review", epilog="Example: sfumato-site review --home site")(review)
app.command(
    "approve", epilog="Example: sfumato-site approve thorax/declared --home site --steward ada --reason fine --looked"
)(approve)
app.command(
    "refuse",
    epilog="Example: sfumato-site refuse thorax/declared --home site --steward ada --ground quality --reason blurred",
)(refuse)
app.command("schema", epilog="Example: sfumato-site schema policy --out policy.schema.json")(schema)
app.command("run", epilog="Example: sfumato-site run --home site")(run)
app.command("status", epilog="Example: sfumato-site status --home site --once")(status)
app.command(epilog="Example: sfumato-site tabular table.csv --home site --schema schema.yaml --output out")(tabular)


@app.callback()
def site(version: Version = False, memory: Memory = None, log: Log = None, store_key: StoreKey = None) -> None:
    """Options that stand before any command."""
    from sfumato_client.site.store_key import choose_store_key
    from sfumato_common.logs import choose_log
    from sfumato_common.memory import limit_memory

    limit_memory(memory)
    choose_log(log)
    choose_store_key(store_key)


@app.command(epilog="Example: sfumato-site init --home site --policy policy.yaml")
def init(home: Home, policy: Annotated[Path, typer.Option(help="The site's policy, YAML.")]) -> None:
    """Make the site's keys, keep its policy and write the enrolment request for the coordinator."""
    from sfumato_client.site.home import SiteHome
    from sfumato_client.site.names import draw_pseudonym
    from sfumato_client.site.store_key import make_store_key
    from sfumato_common.crypto.identity import create_identity

    read = load_yaml(policy, Policy)
    require_real(read.site)
    make_private_folder(home)
    create_identity(home / "identity", read.site)
    write_atomic(home / "identity" / "split.key", secrets.token_hex(32) + "\n", mode=0o600)
    make_store_key(home / "identity")
    if policy.resolve() != (home / "policy.yaml").resolve():
        shutil.copyfile(policy, home / "policy.yaml")
    if read.name != "shown":
        draw_pseudonym(SiteHome(home))
    tell_request(SiteHome(home))


@app.command(epilog="Example: sfumato-site fingerprint --home site --out alder.pem")
def fingerprint(
    home: Home,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the public key there, too: researchers verify with it."),
    ] = None,
    study: Study = "",
) -> None:
    """Print the fingerprint of this site's key, or its pseudonym's: what coordinator and researchers compare."""
    from sfumato_client.site.home import SiteHome
    from sfumato_common.crypto.identity import load_identity
    from sfumato_common.crypto.signatures import fingerprint as fingerprint_of

    key = load_identity(SiteHome(home, study).keys).signing_public
    if out is not None:
        write_atomic(out, key)
    typer.echo(fingerprint_of(key))


@app.command(epilog="Example: sfumato-site join --home site alder.grant.json --coordinator coordinator.example:8443")
def join(
    home: Home,
    grant: Annotated[Path, typer.Argument(help="The coordinator's answer to the enrolment request.")],
    coordinator: Annotated[str, typer.Option(help="HOST:PORT of the coordinator; [ADDRESS]:PORT for IPv6.")],
    fingerprint: Fingerprint = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Let it take the place of another coordinator's or another CA's.")
    ] = False,
    study: Study = "",
) -> None:
    """Compare the coordinator's key and keep its grant: certificates and address."""
    from sfumato_client.site.checks.network import reach_notes
    from sfumato_client.site.home import ADDRESS_FILE, SiteHome
    from sfumato_common.crypto.enrolment import store_grant
    from sfumato_common.crypto.identity import load_identity

    require_address(coordinator)
    said = ask_fingerprint(fingerprint, "the coordinator")
    site = SiteHome(home, study)
    identity = load_identity(site.keys)
    make_private_folder(site.link)
    store_grant(identity, file_bytes(grant), said, replace=replace, folder=site.grant)
    write_json(site.link / ADDRESS_FILE, {"coordinator": coordinator})
    say("enrolled")
    for said in reach_notes(site):
        say(said)


@app.command(epilog="Example: sfumato-site renew --home site alder.grant.json")
def renew(
    home: Home,
    grant: Annotated[Path, typer.Argument(help="The coordinator's grant of a new certificate.")],
    replace: Annotated[bool, typer.Option("--replace", help="Take another CA of the same coordinator.")] = False,
    study: Study = "",
) -> None:
    """Keep a new certificate of the coordinator that this site knows; keys, plans and ledger stay as they are."""
    from sfumato_client.site.home import SiteHome
    from sfumato_common.crypto.certificates import load_certificate
    from sfumato_common.crypto.enrolment import renew_grant
    from sfumato_common.crypto.identity import load_identity

    site = SiteHome(home, study)
    kept = renew_grant(load_identity(site.keys), file_bytes(grant), replace=replace, folder=site.grant)
    end = load_certificate(kept.certificate).not_valid_after_utc
    say(f"renewed until {end:%Y-%m-%d}")


@app.command(epilog="Example: sfumato-site accept --home site plan.yaml")
def accept(
    home: Home,
    plan: Annotated[Path, typer.Argument(help="The study plan that the coordinator proposes, YAML.")],
    yes: Annotated[bool, typer.Option("--yes", help="Accept without asking.")] = False,
    study: Study = "",
    starts: Annotated[
        list[Path] | None, typer.Option("--start", help="Public weights that the plan pins (repeat).")
    ] = None,
) -> None:
    """Hold a plan against policy and ledger, show what it would cost a patient, and pin it."""
    from sfumato_client.site.admission import admit, check_cohorts, release_notes
    from sfumato_client.site.given import gate_encoder, given_encoders, require_text_reader
    from sfumato_client.site.home import SiteHome
    from sfumato_client.site.names import require_nameless
    from sfumato_client.site.offered import what_leaves
    from sfumato_client.site.restored import require_here
    from sfumato_client.site.summing import require_own_key
    from sfumato_common.study.costs import WITHOUT_PRIVACY
    from sfumato_common.study.starts import keep_start
    from sfumato_common.study.summed import pinned_keys

    site = SiteHome(home, study)
    policy = site.policy()
    keep_epsilons(site.epsilons)
    offered = load_resolved_plan(plan).at_site(policy.site)
    require_real(offered.study, policy.site)
    require_own_key(site, offered, policy.site)
    require_nameless(site, offered)
    require_here(site)
    with site.open_ledger() as ledger:
        if kept := sorted({plan.study for plan in ledger.begun() if plan.private and plan.digest != offered.digest}):
            said = f"counted as taken: what studies under way will still charge, {', '.join(kept)}; 'leave' frees it"
            say(said)
        with busy("accounting"):
            cost = admit(offered, policy, ledger)
        store = site.open_store()
        site.require_fitting_store(offered)
        ledger.check_members(store.members("train", "holdout"))
    check_cohorts(offered, policy, store)
    given_encoders(site, offered, policy).load_all(offered.encoders)
    if policy.release.gate.encoder is not None:
        gate_encoder(site, policy.release.gate.encoder, policy)
    require_text_reader(policy.release.gate)
    console.print(forecast_table(cost, f"Plan '{offered.study}' at site '{policy.site}'"))
    say(f"plan hash {offered.digest}")
    for kind, start in offered.public_starts.items():
        declared = f"stage '{kind}' starts from weights declared public ({start.source}, sha256 {start.sha256})"
        say(declared)
    for name, terms in offered.encoders.items():
        declared = f"encoder '{name}' is declared trained on public images ({terms.trained_on}, sha256 {terms.sha256})"
        say(declared)
    if offered.joining:
        joining = "other sites may join while this study runs; what it takes from patients here depends on none of them"
        say(joining)
    for name, key in pinned_keys(offered).items():
        told = f"sums are over sites with these keys: {name} {key}; ask the hospital for its own word"
        say(told)
    if not offered.private:
        warning = f"NO PRIVACY: {WITHOUT_PRIVACY}. This site's policy names the study, so it may take part"
        console.print(warning, style="bold red", markup=False, soft_wrap=True)
    patients = store.cohort("train").patients
    for line in (*what_leaves(offered, policy), *release_notes(offered)):
        say(line)
    if patients > offered.sites[policy.site].nominal_patients:
        say(
            "note: this site has more training patients than the plan's nominal number: epsilon holds, but batches may "
            "exceed their public size and take longer, which is seen outside; ask for a larger nominal number"
        )
    if not yes and not typer.confirm("Take part in this study?"):
        raise PolicyRefusal("not accepted; nothing was pinned")
    for path in starts or []:
        keep_start(site.starts, offered, file_bytes(path))
    site.pin(offered)
    say("accepted and pinned; 'sfumato-site run' takes part")


add_lifecycle(app)
arrange(app)


def main() -> None:
    """Entry point of `sfumato-site`."""
    run_command(app)
