"""`sfumato-site tabular`: a CSV and its schema to a table that may leave, for the data steward."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfumato_client.cli.home import Home
from sfumato_common.accounting.accountant import epsilon_text
from sfumato_common.command_line import say
from sfumato_common.count_text import count_text
from sfumato_common.errors import ConfigError
from sfumato_common.strict import load_yaml


def tabular(
    home: Home,
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="The table, CSV with a header.")],
    schema: Annotated[Path, typer.Option(help="What its columns are, and what the run may cost, YAML.")],
    output: Annotated[Path | None, typer.Option(help="The folder to make; it must not be there yet.")] = None,
    report: Annotated[bool, typer.Option("--report", help="Leave a report in the home folder's 'local'.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Hold the rows against the schema; charge nothing.")] = False,
) -> None:
    """Anonymise a table by CADP, noisy marginals or a copula, charged to the site's ledger first."""
    from sfumato_client.site.home import SiteHome
    from sfumato_client.tabular.run import check_rows, run_tabular
    from sfumato_client.tabular.schema import TableSchema

    site, terms = SiteHome(home), load_yaml(schema, TableSchema)
    if check:
        check_rows(site, source, terms)
        say("every row fits the schema; nothing was charged, computed or written")
        return
    if output is None:
        raise ConfigError(
            "name the folder to make with --output, or only hold the rows against the schema with --check"
        )
    outcome = run_tabular(site, source, terms, output, report)
    stated = outcome.certificate
    say(
        f"epsilon {epsilon_text(stated.epsilon.train.add_remove)} at delta {stated.delta:g}, unit patient, "
        f"adjacency add/remove; replace-one: {epsilon_text(stated.epsilon.train.replace_one)}"
    )
    if stated.noise == "test":
        say("TEST NOISE: no guarantee")
    for disclosed in stated.declared:
        say(f"declared, without an epsilon: {disclosed.what} ({count_text(disclosed.bits, 'bit')})")
    say(stated.signal)
    say(f"{stated.rows} rows, certificate and schema are in '{output.name}'")
    if outcome.report is not None:
        say(f"'{outcome.report.name}' in 'local' of the home folder is about real patients: it stays here")
