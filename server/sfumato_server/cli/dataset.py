"""`sfumato dataset`: the tools for a published data set, for whoever downloads it; they need no home and no network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfumato_common.command_line import AsJson, file_bytes, print_json, say
from sfumato_common.count_text import count_text
from sfumato_common.errors import ConfigError, UnverifiedOrigin, VerificationError
from sfumato_common.files import write_atomic
from sfumato_common.progress import images_shown
from sfumato_server.cli.evaluate import dataset_evaluate
from sfumato_server.cli.shard_workers import On, RayAddress, ShardWorkers, shard_workers
from sfumato_server.workers.tasks import PROCESSES

if TYPE_CHECKING:
    from sfumato_server.publish.versions import Version

dataset_app = typer.Typer(no_args_is_help=True, help="Work with a published data set.")
dataset_app.command(
    "evaluate", epilog="Example: sfumato dataset evaluate published --real index.csv --out evaluation.json"
)(dataset_evaluate)


@dataset_app.command(
    "verify",
    epilog="Example: sfumato dataset verify results/published --key coordinator.pem --site-key alder=alder.pem",
)
def dataset_verify(
    folder: Annotated[Path, typer.Argument(help="A published data set; one PNG of it with --proof.")],
    key: Annotated[
        Path | None, typer.Option(help="The coordinator's public key, from a source that you trust.")
    ] = None,
    site_key: Annotated[
        list[str] | None, typer.Option(help="NAME=FILE: a hospital's public key, from the hospital (repeat).")
    ] = None,
    proof: Annotated[Path | None, typer.Option(help="Check one image against this file of 'dataset prove'.")] = None,
    workers: ShardWorkers = 1,
    on: On = PROCESSES,
    ray_address: RayAddress = None,
    status: Annotated[Path | None, typer.Option(help="The study's signed status file, as new as can be had.")] = None,
    seen: Annotated[Path | None, typer.Option(help="Remembers which status files were shown; else one a user.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check signatures and hashes offline. Without --key nobody vouches for the set: exit code 3."""
    from sfumato_server.publish import UNVERIFIED, verify_dataset
    from sfumato_server.publish.converted import images_in
    from sfumato_server.publish.strays import stray_line
    from sfumato_server.publish.versions import lines_of_holder, standing_of

    for path in [*([key] if key else []), *(Path(one.partition("=")[2]) for one in site_key or [])]:
        _require_apart(path, folder if proof is None else folder.parent)
    if proof is not None:
        _verify_one(folder, proof, key, _site_keys(site_key or []), as_json)
        return
    keys = _public_key(key) if key else None, _site_keys(site_key or [])
    with _whole(), images_shown("verify", images_in(folder), not as_json) as progress:
        report = verify_dataset(folder, *keys, where=shard_workers(workers, on, ray_address), progress=progress)
    standing, later = standing_of(folder, status, key, seen) if status else (None, ())
    if as_json:
        print_json({**asdict(report), **_versions(standing, later)})
    else:
        lines = [report.summary(), *report.key_lines(), *(lines_of_holder(standing, later) if standing else [])]
        lines += [stray_line(report.strays)] if report.strays else []
        say("\n".join(lines))
    if not report.trusted:
        raise UnverifiedOrigin(
            f"{UNVERIFIED}: anybody can make a set that agrees with itself; pass the coordinator's public key, from a "
            "source that you trust, with --key"
        )
    if standing is not None and standing.state == "withdrawn":
        raise VerificationError("this set was withdrawn by its consortium: do not use it")


def _versions(standing: Version | None, later: Sequence[Version]) -> dict[str, Any]:
    if standing is None:
        return {}
    return {"version": standing.model_dump(mode="json"), "later": [one.model_dump(mode="json") for one in later]}


@contextmanager
def _whole() -> Iterator[None]:
    """Adds what to do to what does not hold: files that are missing or altered are mostly a download's fault."""
    from sfumato_server.publish.strays import ExcessError

    try:
        yield
    except ExcessError:
        raise
    except VerificationError as error:
        raise VerificationError(
            f"{error}. The set is not as it was signed: fetch it again, and if that says the same, do not use it and "
            "ask the coordinator"
        ) from None


@dataset_app.command("prove", epilog="Example: sfumato dataset prove results/published NAME --out proof.json")
def dataset_prove(
    folder: Annotated[Path, typer.Argument(help="A published data set.")],
    image: Annotated[str, typer.Argument(help="An image of it: its file there, or its name alone.")],
    out: Annotated[Path, typer.Option(help="Where the proof goes, JSON of a few KB.")],
    as_json: AsJson = False,
) -> None:
    """Write what proves one image without the others; 'dataset verify IMAGE --proof' checks it."""
    from sfumato_server.publish.proof import prove

    found = prove(folder, image)
    data = found.encode()
    write_atomic(out, data)
    if as_json:
        print_json({"image": found.entry.name, "site": found.line.site, "bytes": len(data)})
    else:
        say(f"'{out.name}' proves image {found.entry.name}, {len(data)} bytes")


def _require_apart(key: Path, folder: Path) -> None:
    """Raise UnverifiedOrigin for a key that lies in the set it is to vouch for: whoever made the set put it there."""
    from sfumato_server.publish.manifest import MANIFEST

    here = folder.resolve()
    root = next((part for part in (here, *here.parents) if (part / MANIFEST).is_file()), here)
    if key.resolve().is_relative_to(root):
        raise UnverifiedOrigin(
            f"key '{key.name}' lies inside the set that it is to verify, and whoever made the set put it there: bring "
            "it from its owner, by another way, and keep it elsewhere"
        )


def _verify_one(image: Path, proof: Path, key: Path | None, site_keys: dict[str, bytes], as_json: bool) -> None:
    from sfumato_common.imaging import decode_png
    from sfumato_server.publish.proof import read_proof, verify_image

    if key is None:
        raise ConfigError("--proof needs --key: a proof without the coordinator's public key shows nothing")
    read = read_proof(file_bytes(proof))
    if absent := sorted(set(site_keys) - {read.line.site}):
        raise ConfigError(f"a key of site '{absent[0]}' was given, but the image is of '{read.line.site}'")
    found = verify_image(decode_png(file_bytes(image)), read, _public_key(key), site_keys.get(read.line.site))
    if as_json:
        print_json(asdict(found))
    else:
        say(found.summary())


@dataset_app.command("overview", epilog="Example: sfumato dataset overview results/published --out overview.png")
def dataset_overview(
    folder: Annotated[Path, typer.Argument(help="A published data set.")],
    out: Annotated[Path, typer.Option(help="Where the picture goes, PNG.")],
) -> None:
    """Draw one picture of the set: a row per site and model."""
    from sfumato_server.publish import UNVERIFIED, write_overview

    shown = f"{count_text(write_overview(folder, out), 'image')} shown in '{out.name}'"
    say(f"{shown}; {UNVERIFIED}: run 'sfumato dataset verify' with --key")


@dataset_app.command(
    "convert", epilog="Example: sfumato dataset convert results/published --to dicom --out results/dicom"
)
def dataset_convert(
    folder: Annotated[Path, typer.Argument(help="A published data set, or one that was converted.")],
    to: Annotated[str, typer.Option(help="The format: png, dicom, dicom-multi-frame, webdataset or parquet.")],
    out: Annotated[Path, typer.Option(help="Where the set in its new form goes; not there yet, or empty.")],
    multi_frame: Annotated[bool, typer.Option("--multi-frame", help="With dicom: many images an object.")] = False,
    workers: Annotated[int, typer.Option(help="How many processes write at once.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Write a set in the form that you need; the signatures stay, and 'verify' checks the new form against them."""
    from sfumato_server.publish import UNVERIFIED, convert
    from sfumato_server.publish.converted import images_in

    if multi_frame and not to.startswith("dicom"):
        raise ConfigError("--multi-frame is for --to dicom; leave it out")
    with images_shown("convert", images_in(folder), not as_json) as progress:
        done = convert(folder, "dicom-multi-frame" if multi_frame else to, out, workers, progress)
    if as_json:
        print_json(asdict(done))
    else:
        what = f"{count_text(done.images, 'image')} in {count_text(done.files, 'file')}"
        said = f"{what}, {done.bytes / 1e6:.1f} MB, in '{out.name}' as {done.form}"
        say(f"{said}; {UNVERIFIED}: run 'sfumato dataset verify' with --key")


@dataset_app.command("info", epilog="Example: sfumato dataset info results/published")
def dataset_info(
    folder: Annotated[Path, typer.Argument(help="A published data set.")],
    as_json: AsJson = False,
) -> None:
    """Say what a set is: images by site, label and method, what covers them, licence, what is missing."""
    from sfumato_server.publish import UNVERIFIED
    from sfumato_server.publish.cards.again import facts_of
    from sfumato_server.publish.cards.record import values
    from sfumato_server.publish.cards.summary import summary
    from sfumato_server.publish.converted import open_statement

    facts = facts_of(open_statement(folder))
    if as_json:
        print_json({**values(facts), "verified": False})
        return
    warning = f"{UNVERIFIED}: nothing was checked; run 'sfumato dataset verify' with --key"
    say("\n".join([*summary(facts), warning]))


@dataset_app.command("diff", epilog="Example: sfumato dataset diff old/published new/published")
def dataset_diff(
    old: Annotated[Path, typer.Argument(help="A published data set.")],
    new: Annotated[Path, typer.Argument(help="Another one, of a later version say.")],
    as_json: AsJson = False,
) -> None:
    """Say what differs between two sets: images by site and method, the plan, the epsilon."""
    from sfumato_server.publish import UNVERIFIED
    from sfumato_server.publish.difference import difference, lines, values

    found = difference(old, new)
    if as_json:
        print_json(values(found))
        return
    warning = f"{UNVERIFIED}: nothing was checked; run 'sfumato dataset verify' with --key on both"
    say("\n".join([*lines(found), warning]))


@dataset_app.command("card", epilog="Example: sfumato dataset card results/published --out cards")
def dataset_card(
    folder: Annotated[Path, typer.Argument(help="A published data set.")],
    out: Annotated[Path, typer.Option(help="The folder that the cards go into, outside the set.")],
    figures: Annotated[
        Path | None, typer.Option(help="Of 'dataset evaluate --public': a copy of the report draws them.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Render a set's cards anew, to be hosted apart from it; what needs a signature is left out."""
    from sfumato_server.publish import UNVERIFIED
    from sfumato_server.publish.cards.again import write_cards
    from sfumato_server.publish.outside import write_report

    written = write_cards(folder, out)
    if figures is not None:
        write_report(folder, figures, out / "report.html")
        written.append("report.html")
    if as_json:
        print_json({"written": written, "verified": False})
        return
    said = f"written into '{out.name}': {', '.join(written)}"
    say(f"{said}; {UNVERIFIED}: these copies are not signed")


def _public_key(path: Path) -> bytes:
    """A public key (PEM) that the user named. Raises ConfigError where the file holds none."""
    from sfumato_common.crypto.signatures import load_public_key

    key = file_bytes(path)
    try:
        load_public_key(key)
    except VerificationError:
        raise ConfigError(
            f"'{path.name}' is no public key in PEM form; name the file that its owner gave you"
        ) from None
    return key


def _site_keys(given: list[str]) -> dict[str, bytes]:
    """Keys by site from NAME=FILE words. Raises ConfigError."""
    keys: dict[str, bytes] = {}
    for word in given:
        name, equals, file = word.partition("=")
        if not equals or name in keys:
            raise ConfigError("--site-key takes NAME=FILE, once for each hospital")
        keys[name] = _public_key(Path(file))
    return keys
