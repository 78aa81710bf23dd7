"""What both command lines share: version, tables and JSON, and one clear line and exit code for every failure."""

from __future__ import annotations

import json
import logging
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sfumato_common import __version__
from sfumato_common.accounting.accountant import CohortCosts, epsilon_text, json_epsilon
from sfumato_common.errors import ConfigError, SfumatoError
from sfumato_common.files import write_atomic
from sfumato_common.hints import forget_home, with_home
from sfumato_common.logs import Form, log_form
from sfumato_common.study.costs import WITHOUT_PRIVACY
from sfumato_common.study.forecast import Forecast

console = Console(highlight=False)
complaints = Console(stderr=True, highlight=False)
INTERRUPTED = 130
_SCREEN_SECONDS = 2.0


def _print_version(context: typer.Context, asked: bool) -> None:
    if asked:
        typer.echo(f"{context.info_name} {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_print_version)
]
Memory = Annotated[
    str | None,
    typer.Option("--memory", help="The most that a computation takes, such as 4GiB; by default half of what is free."),
]
Log = Annotated[
    Form | None,
    typer.Option("--log", help="What this command, and all that it starts, log: text, or a JSON object a line."),
]
Fingerprint = Annotated[
    str | None,
    typer.Option("--fingerprint", help="What the other side told of its key by telephone or on paper; else asked for."),
]
Once = Annotated[bool, typer.Option("--once", help="Show it once and leave, for scripts; else until Ctrl-C.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts in place of tables and sentences.")]
# of a home's backup, at a site and at a coordinator
BackupFile = Annotated[Path, typer.Option("--out", help="The encrypted file that is written.")]
Backup = Annotated[Path, typer.Argument(metavar="BACKUP", help="A file written by 'backup'.")]
BackupPassphrase = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="The backup's passphrase, '-' for standard input; else it is asked."),
]
HandOver = Annotated[
    bool, typer.Option("--hand-over", help="Close this home for good: it goes on where the file is restored.")
]


def run_command(app: typer.Typer) -> None:
    """Run a Typer application; SfumatoError becomes one line and its exit code, Ctrl-C becomes 130."""
    forget_home()
    try:
        code = app(standalone_mode=False, prog_name=Path(sys.argv[0]).name)
    except SfumatoError as error:
        _complain(str(error))
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # a usage error of the command line itself
            _complain(_usage(error))
            sys.exit(int(error.exit_code))
        sys.exit(_our_mistake(error))
    if code == INTERRUPTED:  # Typer turns Ctrl-C into this code without a word
        complaints.print("stopped")
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: Any) -> str:
    """What was wrong with the command line, said once, and how the command is written."""
    said = re.sub(r"( Did you mean [^?]*\?)\1+", r"\1", str(error.format_message()))
    example = getattr(getattr(getattr(error, "ctx", None), "command", None), "epilog", None)
    return f"{said} {example}" if example else said


def _our_mistake(error: Exception) -> int:
    with tempfile.NamedTemporaryFile("w", prefix="sfumato-error-", suffix=".log", delete=False) as stream:
        stream.write("".join(traceback.format_exception(error)))
    _complain(f"internal fault ({type(error).__name__}); details are in '{Path(stream.name)}' on this machine")
    return 1


def _complain(error: str) -> None:
    """The one line that a command fails with; in a log of JSON one of its lines."""
    if log_form() == "json":
        logging.getLogger(__name__).error(error)
    else:
        complaints.print(f"error: {with_home(error)}", style="bold red", markup=False, soft_wrap=True)


def file_bytes(path: Path) -> bytes:
    """What a file that the user named holds. Raises ConfigError, with its name only, when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        raise ConfigError(f"'{path.name}' cannot be read; check the path") from None


def require_address(text: str) -> None:
    """Raise ConfigError unless `text` is HOST:PORT, an IPv6 address in brackets."""
    host, _, port = text.rpartition(":")
    numbered = host.startswith("[") and host.endswith("]")
    named = host and not set(host) & set(":/[]@ ")
    if not (numbered or named) or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(
            "the coordinator's address must be HOST:PORT, as in coordinator.example:8443; an IPv6 address stands in "
            "brackets, as in [2001:db8::5]:8443"
        )


def ask_fingerprint(given: str | None, whose: str) -> str:
    """The fingerprint that the other side told: `given`, or typed in. Raises ConfigError where nobody is there to ask.

    What the document itself says is never shown beside the question: it would be copied.
    """
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise ConfigError(f"pass --fingerprint with what {whose} told by telephone or on paper")
    return str(typer.prompt(f"Fingerprint that {whose} told by telephone or on paper"))


def duration_text(seconds: float) -> str:
    """A duration for people: '40 s', '12 min', '3 h 05 min', '2 days 4 h'."""
    whole = max(0, round(seconds))
    if whole < 100:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours = round(minutes / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if hours < 48 else f"{hours // 24} days {hours % 24} h"


def show_status(
    read: Callable[[], Mapping[str, Any]],
    draw: Callable[[Mapping[str, Any]], RenderableType],
    once: bool,
    as_json: bool,
) -> None:
    """Show what `read` gives: drawn anew every two seconds until Ctrl-C; once, off a terminal too; or as JSON."""
    if as_json:
        print_json(read())
        return
    if once or not console.is_terminal:
        console.print(draw(read()), soft_wrap=True)
        return
    with suppress(KeyboardInterrupt), Live(draw(read()), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(_SCREEN_SECONDS)
            live.update(draw(read()), refresh=True)


def step_text(done: int, steps: int, asked: str) -> str:
    """How far an exchange is: of a release, which is asked for by 'make' and 'send', in images; else in steps."""
    return f"{done} of {steps} images" if asked in ("make", "send") else f"step {done} of {steps}"


def say(text: str) -> None:
    """A sentence on stdout: no markup, lines no shorter than it has them, and the home in commands that it names."""
    console.print(with_home(text), markup=False, soft_wrap=True)


def ask_passphrase(file: Path | None, what: str, option: str, new: bool = False) -> bytes:
    """The passphrase, without a line end; asked twice for a `new` one. Raises ConfigError where nobody can be asked."""
    if file is not None:
        given = sys.stdin.buffer.readline(4096) if str(file) == "-" else file_bytes(file)
        return given.rstrip(b"\r\n")
    if not sys.stdin.isatty():
        raise ConfigError(f"nobody can be asked for the {what}; give {option}")
    asked: str = typer.prompt(what, hide_input=True, confirmation_prompt=new)
    return asked.encode()


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout. Names in it are stable, and an epsilon without a bound is null."""
    typer.echo(json.dumps(value, indent=2, sort_keys=True, allow_nan=False))


def keep_epsilons(folder: Path) -> None:
    """Take epsilons from `folder`, and keep them there, until this command ends; it charges nothing."""
    from sfumato_common.accounting.kept import keeping

    click.get_current_context().with_resource(keeping(folder))


def print_schema(schema: dict[str, Any], out: Path | None) -> None:
    """A JSON Schema on stdout, or in the file `out`."""
    from sfumato_common.strict.schema import schema_text

    if out is None:
        typer.echo(schema_text(schema), nl=False)
        return
    write_atomic(out, schema_text(schema))
    said = f"'{out.name}' is for editors: '# yaml-language-server: $schema={out.name}' as a file's first line names it"
    say(said)


def forecast_json(forecast: Forecast) -> dict[str, Any]:
    """What `forecast_table` shows."""
    stages = [{**asdict(line), "epsilon_after": json_epsilon(line.epsilon_after)} for line in forecast.stages]
    private, delta = forecast.private, forecast.delta
    costs = costs_json(forecast.totals)
    return {"private": private, "delta": delta, "stages": stages, "costs": costs, "noised": list(forecast.noised)}


def costs_json(costs: CohortCosts) -> dict[str, Any]:
    """What `costs_table` shows, by who pays: train, holdout or any one patient."""
    return {who: {name: json_epsilon(value) for name, value in cost.items()} for who, cost in asdict(costs).items()}


def forecast_table(forecast: Forecast, title: str) -> Group:
    """A plan's cost as two tables: what each stage runs and the epsilon reached when it ends; then the totals.

    What noise on latents would cost by itself, under a plan without privacy, stands first.
    """
    table = Table(title=title, caption=None if forecast.private else f"NO PRIVACY: {WITHOUT_PRIVACY}")
    for heading in ("stage", "rounds", "steps", "noise multiplier", "sampling rate", "epsilon after"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for line in forecast.stages:
        table.add_row(
            line.stage,
            str(line.rounds),
            str(line.steps),
            "by method" if line.noise_multiplier is None else f"{line.noise_multiplier:g}",
            f"{line.sampling_rate:g}",
            epsilon_text(line.epsilon_after),
        )
    return Group(*map(Text, forecast.noised), table, costs_table(forecast.totals, forecast.delta))


def costs_table(costs: CohortCosts, delta: float) -> Table:
    """What each cohort's patients pay in all: add/remove, its cross-check by Renyi divergences, and replace-one."""
    table = Table(caption=f"epsilon at delta {delta:g}, unit patient; RDP: a looser bound that checks add/remove")
    for heading in ("who pays, in all", "add/remove (PLD)", "add/remove (RDP)", "replace-one (PLD)"):
        table.add_column(heading, justify="left" if heading.startswith("who") else "right")
    for name, cost in (
        ("training patients", costs.train),
        ("holdout patients", costs.holdout),
        ("any one patient", costs.patient),
    ):
        table.add_row(name, *map(epsilon_text, (cost.add_remove, cost.add_remove_rdp, cost.replace_one)))
    return table
