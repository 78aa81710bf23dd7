"""Codecs of four cohorts, one after another: chest films and fundi at 64 and at 128 px, against as many cosines.

    python tests/bench/codec_cohorts.py [--seconds 400] [--cohorts sites-128,sites-64,fundi-128,fundi-64] [--out FOLDER]
    python tests/bench/codec_cohorts.py --prepare FILE      # chest films only, for a machine without the collections
    python tests/bench/codec_cohorts.py --images FILE       # trains on those

Chest films: those patients of the NIH and Hannover that the bench of methods trains on, and the phantom; held out are
the patients that it sets aside, and a tenth of the phantom's; strangers are Guangzhou's patients with several images,
of whose site nothing is trained on. Fundi, in colour: phantoms alone; strangers are sixty open photographs. By pixels
first, then a fifth of the time with the energy loss. Phantoms are drawn beside the training, by another process.
`--seconds` are of training and scoring, from where the first images are there.

Writes a folder and an archive COHORT.tar a cohort, which holds COHORT/codec as `sfumato model pretrain codec` leaves
one, sheet-COHORT.png (strangers, cosines, codec), and prints a table and writes codec_cohorts.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tarfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from codec import device_name, keep, learned, teller
from cohorts import DATA, ROOT, pooled
from rich.console import Console
from rich.table import Table

from sfumato_common.codec.form import CodecForm, LossWeights, Source
from sfumato_common.codec.public_images import PHANTOM, read_public
from sfumato_common.codec.training import Budget, best_device, train_codec
from sfumato_common.files import write_atomic, write_json
from sfumato_common.metrics.reconstruction import Reconstruction, reconstruction_scores
from sfumato_common.types import ByteImages
from sfumato_server.coordinator.codec import cosines, sheet

SEED = 0
CHEST = ("nih", "hannover")
LICENCES = {
    "sites": "NIH Clinical Center (no restriction, see NOTICE.md); Hannover CC BY 3.0; phantom: nobody's",
    "fundi": "drawn by Sfumato: nobody's",
}
# name: its share of the time, and its form; at 64 px places are finer, because anatomy is
FORMS = {
    "sites-128": (0.325, CodecForm(size=128, cosines=1024, kept=512)),
    "sites-64": (0.175, CodecForm(size=64, cosines=512, kept=256, step=2, encoder_blocks=4, decoder_blocks=10)),
    "fundi-128": (0.3, CodecForm(size=128, channels=3, cosines=1024, kept=512)),
    "fundi-64": (0.2, CodecForm(size=64, channels=3, cosines=512, kept=256, step=2, encoder_blocks=4)),
}
SMALL = {"width": 8, "encoder_blocks": 1, "decoder_blocks": 2}
LOSSES = (LossWeights(), LossWeights(energy=0.0005))
ENERGY_SHARE = 0.2
SCORING = 4.0  # seconds of an accelerator; a processor takes longer, beyond `--seconds`
PHANTOMS = {"sites": 300, "fundi": 400}
SHOWN = 8
PARTS = ("train", "held", "strangers")


@dataclass(frozen=True, eq=False)
class Images:
    """What a codec learns from, what is held out, and what is of a site that it never saw: uint8 [N, S, S(, 3)]."""

    train: ByteImages
    held: ByteImages
    strangers: ByteImages
    sources: list[Source]


def images_of(name: str) -> Images:
    """The images of a cohort."""
    kind, size = name.split("-")[0], FORMS[name][1].size
    public = read_public([PHANTOM], size, FORMS[name][1].channels, patients=PHANTOMS[kind], seed=SEED)
    train, held = public.halves(SEED)
    if kind == "fundi":
        with np.load(DATA / f"fundus_open_{size}.npz") as file:
            return Images(train, held, file["images"], public.sources)
    from methods_make import split  # trains and releases: not where a card is lent

    cohort, aside = split("sites" if size == 64 else f"sites-{size}")
    films = {site: cohort.train[site] for site in CHEST}
    sources = [
        Source(name=f"{site}, {size} px", images=len(part.labels), patients=part.patients)
        for site, part in films.items()
    ]
    return Images(
        np.concatenate([train, pooled(films)[0]]),
        np.concatenate([held, pooled({site: aside[site] for site in CHEST})[0]]),
        guangzhou(size),
        [*sources, *public.sources],
    )


def guangzhou(size: int) -> ByteImages:
    """Guangzhou's patients with several images."""
    with np.load(DATA / "kermany_128_multi.npz") as file:
        wanted = file["source_file"]
    with np.load(DATA / f"kermany_{size}.npz") as file:
        images: ByteImages = file["images"][np.isin(file["source_file"], wanted)]
    return images


def write_images(path: Path, names: Sequence[str]) -> None:
    """The chest films of cohorts as one archive."""
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for name in (name for name in names if name.startswith("sites")):
        found = images_of(name)
        arrays |= {f"{name}.{part}": getattr(found, part) for part in PARTS}
        arrays[f"{name}.sources"] = np.array(json.dumps([source.model_dump() for source in found.sources]))
        print(name, {part: len(getattr(found, part)) for part in PARTS}, flush=True)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def read_images(path: Path, name: str) -> Images:
    """The images of a cohort in such an archive."""
    with np.load(path) as file:
        sources = [Source(**source) for source in json.loads(str(file[f"{name}.sources"]))]
        return Images(*(file[f"{name}.{part}"] for part in PARTS), sources)


def train(name: str, images: Images, form: CodecForm, options: argparse.Namespace) -> dict[str, object]:
    """Train a cohort's codec for its part of the time, write it, and score it."""
    began, (energy, kind) = time.monotonic(), (LOSSES[1], name.split("-")[0])
    shown = torch.from_numpy(images.train)
    shown = shown[:, None] if form.channels == 1 else shown.permute(0, 3, 1, 2).contiguous()
    seconds = max(1.0, FORMS[name][0] * options.seconds - (SCORING if best_device().type == "cuda" else 0.0))
    first = train_codec(
        form,
        LOSSES[0],
        shown,
        Budget(seconds=(1.0 - ENERGY_SHARE) * seconds, batch=options.batch),
        SEED,
        teller(f"{name}, pixel"),
    )
    last = train_codec(
        form,
        energy,
        shown,
        Budget(seconds=ENERGY_SHARE * seconds, batch=options.batch),
        SEED,
        teller(f"{name}, energy"),
        start=first.codec,
    )
    last = last._replace(
        codec=last.codec.to(best_device()), steps=first.steps + last.steps, seconds=first.seconds + last.seconds
    )
    folder = options.out / name / "codec"
    keep(folder, last, form, energy, images.sources, LICENCES[kind], images.held)
    partial = options.out / f"{name}.tar.part"
    with tarfile.open(partial, "w") as archive:
        archive.add(folder, f"{name}/codec")
    partial.replace(options.out / f"{name}.tar")
    some = images.strangers[np.linspace(0, len(images.strangers) - 1, SHOWN).astype(int)]
    write_atomic(options.out / f"sheet-{name}.png", sheet(some, cosines(some, form.numbers), learned(last.codec)(some)))
    rows = {
        code: {part: scores(getattr(images, part), make(getattr(images, part)).numpy()) for part in PARTS[1:]}
        for code, make in {"cosines": lambda x: cosines(x, form.numbers), "codec": learned(last.codec)}.items()
    }
    counts = {part: len(getattr(images, part)) for part in PARTS}
    print(f"{name}: {last.steps} steps, {time.monotonic() - began:.0f} s in all", flush=True)
    return {"images": counts, "numbers": form.numbers, "steps": last.steps, "seconds": last.seconds, "rows": rows}


def scores(images: ByteImages, made: npt.NDArray[np.float32]) -> Reconstruction:
    """PSNR, fine correlation, share of gradient energy."""
    return Reconstruction(*(round(value, 4) for value in reconstruction_scores(images, made)))


def show(found: dict[str, dict[str, object]]) -> None:
    """The table."""
    table = Table(title=f"codecs, on {device_name()}", title_justify="left")
    headings = ("held-out dB", "fine", "energy", "strangers dB", "fine", "energy")
    for heading in ("cohort", "numbers", "steps", "code", *headings):
        table.add_column(heading, justify="left" if heading in ("cohort", "code") else "right")
    for name, own in found.items():
        rows = own["rows"]
        assert isinstance(rows, dict)
        for code, parts in rows.items():
            figures = [
                f"{value:.{2 if at % 3 == 0 else 3}f}" for at, value in enumerate((*parts[PARTS[1]], *parts[PARTS[2]]))
            ]
            table.add_row(name, str(own["numbers"]), str(own["steps"]) if code == "codec" else "", code, *figures)
    Console(width=120).print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare images, or train, score, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=400.0, help="of all codecs together, scoring included")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--cohorts", type=lambda text: text.split(","), default=list(FORMS))
    parser.add_argument("--out", type=Path, default=ROOT / "bench-out" / "codec-cohorts")
    parser.add_argument("--prepare", type=Path, help="write the images into this npz and stop")
    parser.add_argument("--images", type=Path, help="an npz that --prepare wrote, in place of the collections")
    parser.add_argument("--small", action="store_true", help="tiny networks: to see that it works")
    options = parser.parse_args(arguments)
    if options.prepare:
        write_images(options.prepare, options.cohorts)
        return
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    options.out.mkdir(parents=True, exist_ok=True)
    found = {}
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as drawing:
        waiting = {name: drawing.submit(images_of, name) for name in options.cohorts if not _brought(name, options)}
        for name in options.cohorts:
            images = read_images(options.images, name) if _brought(name, options) else waiting[name].result()
            form = FORMS[name][1].model_copy(update=SMALL if options.small else {})
            found[name] = train(name, images, form, options)
            write_json(options.out / "codec_cohorts.json", {"device": device_name(), "cohorts": found})
    show(found)


def _brought(name: str, options: argparse.Namespace) -> bool:
    return options.images is not None and name.startswith("sites")


if __name__ == "__main__":
    main()
