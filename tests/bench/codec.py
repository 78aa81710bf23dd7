"""A public autoencoder against as many cosines, judged on a site that it never saw; and what each loss buys.

    python tests/bench/codec.py [--seconds 150] [--out bench-out/codec] [--small]
    python tests/bench/codec.py --read bench-out/codec      # adds the AUC to the table of an earlier run

Learns from the NIH's and Hannover's images and the phantom, 128 px, 1,024 numbers an image; a tenth of their patients
is kept apart, and choices are made on it. Judged on Guangzhou's patients with several images (not one of that site's
images is trained on). Rows: cosines in a square and of least frequency, Karhunen-Loeve bases of patches (linear, the
best of their kind), and codecs: `pixel` first, the others go on from it for a share of the time. AUC: of a network
trained on Guangzhou's training images, on reconstructions of its official test images.

Prints a table, writes codec.json, a folder with the weights of each codec, and sheet.png (real, cosines, each codec).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from cohorts import DATA
from rich.console import Console
from rich.table import Table
from scipy.fft import dctn, idctn
from torch import Tensor

from sfumato_common.codec.folder import read_codec, weights_of, write_codec
from sfumato_common.codec.form import CodecConfig, CodecForm, LossWeights, Report, Source
from sfumato_common.codec.network import Codec
from sfumato_common.codec.public_images import PublicImages, read_public
from sfumato_common.codec.training import Budget, Step, Trained, best_device, train_codec
from sfumato_common.files import write_json
from sfumato_common.metrics.network import fit_network
from sfumato_common.metrics.reconstruction import Reconstruction, reconstruction_scores
from sfumato_common.pictures import mosaic, png
from sfumato_common.types import ByteImages, fingerprint, to_bytes, to_unit_range
from sfumato_server.coordinator.codec import cosines as least
from sfumato_server.coordinator.codec import reconstruct, score

NUMBERS, SEED = 1024, 0
LICENCE = "NIH Clinical Center (no restriction, see NOTICE.md); Hannover CC BY 3.0; phantom: nobody's"
FORM = CodecForm(size=128, cosines=NUMBERS, kept=512)
SMALL = CodecForm(size=128, cosines=NUMBERS, kept=512, width=16, encoder_blocks=1, decoder_blocks=2)
# name: share of the time, weights of the losses; the first begins anew, the others go on from it
LOSSES = {
    "pixel": (0.52, LossWeights()),
    "gradient": (0.1, LossWeights(gradient=1.0)),
    "feature": (0.1, LossWeights(feature=0.02)),
    "energy": (0.1, LossWeights(energy=0.0005)),
    "adversarial": (0.1, LossWeights(adversarial=0.0005)),
    "energy, gradient": (0.08, LossWeights(gradient=1.0, energy=0.001)),
}
SHEET_IMAGES = 7
JUDGED_SHARE = 0.98

Make = Callable[[ByteImages], Tensor]


@dataclass
class Row:
    """One code: how it does on patients of the sites it learned from, and on the site that it never saw."""

    name: str
    held: Reconstruction
    unseen: Reconstruction
    auc: float | None = None


def square(images: ByteImages) -> Tensor:
    """Plain DCT of as many numbers, a square of the lowest."""
    side = int(NUMBERS**0.5)
    low = dctn(to_unit_range(images), axes=(2, 3), norm="ortho")
    low[:, :, side:], low[:, :, :, side:] = 0.0, 0.0
    return torch.from_numpy(idctn(low, axes=(2, 3), norm="ortho"))


def patches(images: npt.NDArray[np.float32], cell: int) -> npt.NDArray[np.float32]:
    """[N, S, S] -> [N, (S / cell)^2, cell^2]."""
    count, size = len(images), images.shape[-1] // cell
    cut = images.reshape(count, size, cell, size, cell).transpose(0, 1, 3, 2, 4)
    return np.ascontiguousarray(cut.reshape(count, size * size, cell * cell))


def karhunen_loeve(train: ByteImages, cell: int, kept: int) -> Make:
    """`kept` cosines, and of what they leave as many principal components a patch as the numbers allow."""

    def low(images: ByteImages) -> npt.NDArray[np.float32]:
        return least(images, kept)[:, 0].numpy()

    left = patches(to_unit_range(train)[:, 0] - low(train), cell).reshape(-1, cell * cell).astype(np.float64)
    mean = left.mean(axis=0)
    count = (NUMBERS - kept) // (train.shape[1] // cell) ** 2
    basis = np.linalg.eigh(np.cov(left, rowvar=False))[1][:, -count:]

    def make(images: ByteImages) -> Tensor:
        plain = low(images)
        own = patches(to_unit_range(images)[:, 0] - plain, cell) - mean
        found = (own @ basis) @ basis.T + mean
        size = images.shape[1] // cell
        whole = found.reshape(len(images), size, size, cell, cell).transpose(0, 1, 3, 2, 4)
        return torch.from_numpy((plain + whole.reshape(plain.shape)).astype(np.float32))[:, None]

    return make


def learned(codec: Codec) -> Make:
    """A codec, there and back."""
    return lambda images: reconstruct(codec, images)


def training_images(small: bool) -> PublicImages:
    """NIH, Hannover, and the phantom's patients."""
    names = [str(DATA / "nih_128_all.npz"), str(DATA / "hannover_128.npz"), "phantom"]
    return read_public(names, 128, 1, patients=8 if small else 300, seed=SEED)


def unseen_images(small: bool) -> ByteImages:
    """Guangzhou's patients with several images."""
    with np.load(DATA / "kermany_128_multi.npz") as file:
        images: ByteImages = file["images"]
    return images[::8] if small else images


def train_all(options: argparse.Namespace, public: PublicImages) -> dict[str, Codec]:
    """Every codec of `LOSSES`, written as soon as it is there: a card is lent for a time."""
    shown, held = public.halves(SEED)
    images, form = torch.from_numpy(shown)[:, None], SMALL if options.small else FORM
    budget = options.seconds - 2.0 * len(LOSSES)
    codecs: dict[str, Codec] = {}
    for name, (share, losses) in LOSSES.items():
        begun = time.monotonic()
        trained = train_codec(
            form,
            losses,
            images,
            Budget(seconds=share * budget, batch=options.batch),
            SEED,
            teller(name),
            start=codecs.get("pixel"),
        )
        codecs[name] = trained.codec.to(best_device())
        folder = options.out / name.replace(", ", "-")
        report = keep(folder, trained, form, losses, public.sources, LICENCE, held).report
        print(f"{name}: {trained.steps} steps, {time.monotonic() - begun:.0f} s, {report.codec}", flush=True)
    return codecs


def keep(
    folder: Path,
    trained: Trained,
    form: CodecForm,
    losses: LossWeights,
    sources: list[Source],
    licence: str,
    held: ByteImages,
) -> CodecConfig:
    """Write a trained codec, scored on images `held` apart; its configuration."""
    report = Report(
        steps=trained.steps,
        seconds=round(trained.seconds, 1),
        device=device_name(),
        held_out_images=len(held),
        codec=score(held, reconstruct(trained.codec, held)),
        cosines=score(held, least(held, form.numbers)),
    )
    sha256 = fingerprint(weights_of(trained.codec))
    config = CodecConfig(
        form=form, losses=losses, sources=sources, licence=licence, report=report, weights_sha256=sha256
    )
    write_codec(folder, trained.codec, config)
    return config


def teller(name: str) -> Callable[[Step], None]:
    """Prints a line of progress every tenth."""
    told = [0.0]

    def tell(step: Step) -> None:
        if step.progress >= told[0]:
            told[0] = step.progress + 0.1
            print(f"  {name}: {step.progress:4.0%} step {step.number} {step.psnr:.2f} dB in training", flush=True)

    return tell


def device_name() -> str:
    """The card, or the processor."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def judge(rows: list[Row], codes: dict[str, Make], count: int, steps: int) -> float:
    """AUC on the official test images, real and of each code, of a network trained on the training images."""
    with np.load(DATA / "kermany_128.npz") as file:
        images, labels, split = file["images"], file["labels"].astype(np.int64), file["split"]
    train = np.flatnonzero(split == "train")
    test = np.random.default_rng(SEED).permutation(np.flatnonzero(split == "test"))[:count]
    network = fit_network(images[train], labels[train], 2, SEED, steps=steps)

    def auc(shown: ByteImages) -> float:
        scores, sick = network.probabilities(shown)[:, 1], labels[test] == 1
        higher = scores[sick][:, None] - scores[~sick][None, :]
        return float(np.mean((higher > 0) + 0.5 * (higher == 0)))

    for row in rows:
        row.auc = auc(to_bytes(codes[row.name](images[test]).numpy()))
        print(f"AUC {row.name}: {row.auc:.4f}", flush=True)
    return auc(images[test])


def draw_sheet(path: Path, images: ByteImages, codes: dict[str, Make]) -> None:
    """Real images, then each code's, at their own size."""
    chosen = images[np.linspace(0, len(images) - 1, SHEET_IMAGES).astype(int)]
    rows = [list(chosen)] + [list(to_bytes(make(chosen).numpy())) for make in codes.values()]
    path.write_bytes(png(mosaic(rows, columns=SHEET_IMAGES, least_width=0)))


def show(rows: Sequence[Row], real_auc: float | None) -> None:
    """The table, and the bars."""
    title = f"{NUMBERS} numbers an image of 128 px; AUC on images {'-' if real_auc is None else f'{real_auc:.4f}'}"
    table = Table(title=title, title_justify="left")
    for heading in ("code", "held-out dB", "fine", "energy", "Guangzhou dB", "fine", "energy", "AUC", "bars"):
        table.add_column(heading, justify="left" if heading in ("code", "bars") else "right")
    best = max(rows[:2], key=lambda row: row.unseen.psnr).unseen
    for row in rows:
        unseen = row.unseen
        met = [unseen.psnr >= best.psnr, unseen.fine >= best.fine, unseen.energy >= 0.6]
        if row.auc is not None and real_auc is not None:
            met.append(row.auc >= JUDGED_SHARE * real_auc)
        cells = [f"{value:.{2 if at % 3 == 0 else 3}f}" for at, value in enumerate((*row.held, *unseen))]
        table.add_row(row.name, *cells, "" if row.auc is None else f"{row.auc:.4f}", f"{sum(met)} of {len(met)}")
    Console(width=120).print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train or read, score, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=150.0, help="of training, all codecs together")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("bench-out/codec"))
    parser.add_argument("--read", type=Path, help="folder of an earlier run: its codecs are judged, not trained")
    parser.add_argument("--judged", type=int, default=300, help="test images of the AUC")
    parser.add_argument("--judge-steps", type=int, default=600, help="training steps of the network that judges")
    parser.add_argument("--small", action="store_true", help="tiny networks and few images: to see that it works")
    options = parser.parse_args(arguments)
    if options.read:
        add_auc(options)
        return
    public = training_images(options.small)
    shown, held = public.halves(SEED)
    unseen = unseen_images(options.small)
    codes = plain_codes(shown) | {
        f"codec, {name}": learned(codec) for name, codec in train_all(options, public).items()
    }
    held = held[:16] if options.small else held
    rows = [
        Row(name, reconstruction_scores(held, make(held).numpy()), reconstruction_scores(unseen, make(unseen).numpy()))
        for name, make in codes.items()
    ]
    draw_sheet(options.out / "sheet.png", unseen, {name: codes[name] for name in list(codes)[1:2] + list(codes)[4:]})
    finish(options.out, rows, None, device_name())


def plain_codes(train: ByteImages) -> dict[str, Make]:
    """What is compared with: nothing in it is learned but the bases of patches."""
    return {
        "DCT, 32 x 32": square,
        "DCT, least frequency": lambda images: least(images, NUMBERS),
        "KLT, 4 of 8 x 8": karhunen_loeve(train, 8, 0),
        "512 DCT + KLT, 2 of 8 x 8": karhunen_loeve(train, 8, 512),
    }


def add_auc(options: argparse.Namespace) -> None:
    """The table of the run in `options.read`, with the AUC of those codes whose weights are there."""
    stated = json.loads((options.read / "codec.json").read_text())
    rows = [Row(row["name"], Reconstruction(*row["held"]), Reconstruction(*row["unseen"])) for row in stated["rows"]]
    codes = plain_codes(training_images(small=True).halves(SEED)[0])
    for path in options.read.glob("*/config.json"):
        codes[f"codec, {path.parent.name.replace('-', ', ')}"] = learned(read_codec(path.parent)[0])
    real_auc = judge([row for row in rows if row.name in codes], codes, options.judged, options.judge_steps)
    finish(options.out, rows, real_auc, stated["device"])


def finish(out: Path, rows: Sequence[Row], real_auc: float | None, device: str) -> None:
    """Print and write the table."""
    show(rows, real_auc)
    results = {"device": device, "cores": os.cpu_count(), "auc_real": real_auc, "rows": [asdict(r) for r in rows]}
    write_json(out / "codec.json", results)


if __name__ == "__main__":
    main()
