"""`sfumato dataset convert`: a set in another form, written by as many processes as are asked for."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from sfumato_common.errors import ConfigError, NoRoomError, SfumatoError, VerificationError
from sfumato_common.files import room_errors, sync_folder
from sfumato_common.supervise import run_to_end
from sfumato_server.publish.converted import INDEX, STATEMENT, Source, form_of, index_lines, open_source
from sfumato_server.publish.formats import Format, format_of
from sfumato_server.publish.manifest import FORM
from sfumato_server.publish.reading import PublishedImage
from sfumato_server.publish.verify import verify_statements

_SECONDS = 7 * 86_400.0
TOLD, _EVERY_S = 64, 0.5  # after how many images a worker says so, a byte; how often it is looked at
_SAID = (ConfigError, NoRoomError, VerificationError)


@dataclass(frozen=True)
class Conversion:
    """What was written: format, number of images and files, bytes of the files, seconds."""

    form: str
    images: int
    files: int
    bytes: int
    seconds: float


def convert(
    folder: Path, name: str, out: Path, workers: int = 1, progress: Callable[[int], None] = lambda images: None
) -> Conversion:
    """Write the set in `folder`, published or converted, to `out` in the format of that name.

    Signatures are checked first, and every image against what its site signed as it is read; who signed is for
    `verify_dataset` to say. `out` appears whole or not at all. `progress` is told how many images were written since it
    was told last. Raises ConfigError when `out` holds something or the format is unknown, VerificationError when the
    set does not hold, NoRoomError when the disk is full.
    """
    form = format_of(name)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"'{out.name}' holds something; choose a folder that is empty or not there yet")
    if workers < 1:
        raise ConfigError("--workers takes a number from 1")
    begun = time.monotonic()
    source = open_source(folder)
    if out.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"'{out.name}' lies inside the set itself; choose a folder beside it")
    verify_statements(source.statement)
    with room_errors():
        out.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
        try:
            _write(source, form, fresh, workers, progress)
            fresh.chmod(0o755)
            found = [path.stat().st_size for path in fresh.rglob("*") if path.is_file()]
            # on the disk before the name points at them; one call is cheaper than a million of fsyncs
            os.sync()
            fresh.replace(out)
            sync_folder(out.parent)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return Conversion(form.name, source.about.images, len(found), sum(found), round(time.monotonic() - begun, 3))


def _write(source: Source, form: Format, fresh: Path, workers: int, progress: Callable[[int], None]) -> None:
    for name in source.published.statements():
        path = fresh / STATEMENT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.statement / name, path)
    shards = -(-source.about.images // form.per_shard(source.published.plan))
    if min(workers, shards) > 1:
        _share(source.folder, form, fresh, min(workers, shards), progress)
    else:
        write_shards(source, form, fresh, progress)
    with (fresh / INDEX).open("w", encoding="ascii", newline="") as stream:
        stream.writelines(index_lines(source, form))
    (fresh / FORM).write_bytes(form_of(source, form).encode())


def write_shards(
    source: Source, form: Format, fresh: Path, progress: Callable[[int], None], mine: int = 0, of: int = 1
) -> None:
    """Write every `of`-th shard, beginning with the `mine`-th."""
    for shard in source.shards(form):
        if shard.number % of == mine:
            form.write(fresh, shard, _told(source.images(shard), progress), source.about)


def _told(images: Iterator[PublishedImage], progress: Callable[[int], None]) -> Iterator[PublishedImage]:
    count = 0
    for count, image in enumerate(images, 1):
        yield image
        if count % TOLD == 0:
            progress(TOLD)
    progress(count % TOLD)


def _share(folder: Path, form: Format, fresh: Path, workers: int, progress: Callable[[int], None]) -> None:
    """The shards by so many processes, each of which tells in a file how far it is. Raises what one says was wrong."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    program = [sys.executable, "-m", "sfumato_server.publish.conversion_program", str(folder), form.name, str(fresh)]
    with ThreadPoolExecutor(workers) as threads, tempfile.TemporaryDirectory() as told:
        commands = [[*program, str(mine), str(workers), f"{told}/{mine}"] for mine in range(workers)]
        running = [threads.submit(run_to_end, command, environment, _SECONDS) for command in commands]
        done = 0
        while wait(running, _EVERY_S).not_done:
            now = sum(path.stat().st_size for path in Path(told).iterdir())
            progress(TOLD * (now - done))
            done = now
    for code, said in (process.result() for process in running):
        if code != 0:
            kind = next((known for known in _SAID if known.exit_code == code), SfumatoError)
            raise kind(said.strip()[-500:] or f"a worker ended with code {code}; it was killed")
