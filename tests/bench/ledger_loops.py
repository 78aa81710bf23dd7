"""What the ledger costs an Opacus loop, and a charge a ledger of many rows: a table, and bench-out/ledger_loops.json.

    make bench NAME=ledger_loops ARGS="[--images IMAGES.npz] [--steps 60] [--rows 10,100,1000]"

Both loops train the same small convolutional network on the same images, one a patient, in turns of one process; Opacus
alone draws from torch's generator, which can be predicted, and the ledger from ChaCha20. IMAGES.npz holds `images`
[N, H, W] uint8 and `labels` [N]; without it the phantom cohort. Every figure is a median over turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from opacus import PrivacyEngine
from opacus.accountants import PRVAccountant

from sfumato import ledger
from sfumato.ledger import opacus
from sfumato_common.accounting.accountant import epsilon
from sfumato_common.accounting.events import GaussianRelease, SampledGaussian
from sfumato_common.phantom import arrays

NOISE, RATE, DELTA = 1.1, 0.05, 1e-5


def data(path: Path | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [N, 1, S, S] in [-1, 1], and whether each has the commonest label."""
    if path is None:
        images, labels, patients = arrays(seed=1, patients=1500, size=28)
        first = np.unique(patients, return_index=True)[1]
        images, labels = images[first], labels[first]
    else:
        held = np.load(path)
        images, labels = held["images"][:1500], held["labels"][:1500]
    values = torch.from_numpy(images.astype(np.float32))[:, None] / 127.5 - 1
    flat = np.asarray(labels).reshape(len(labels), -1)[:, 0]
    return values, torch.from_numpy((flat == np.bincount(flat).argmax()).astype(np.int64))


def prepared(x: torch.Tensor, y: torch.Tensor, seed: int):
    """(engine, network, optimizer, loader) of Opacus."""
    torch.manual_seed(seed)
    conv = torch.nn.Conv2d
    net = torch.nn.Sequential(
        conv(1, 16, 5, stride=2), torch.nn.ReLU(), conv(16, 32, 5, stride=2), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(3), torch.nn.Flatten(), torch.nn.Linear(288, 64), torch.nn.ReLU(),
        torch.nn.Linear(64, 2),
    )  # fmt: skip
    rows = torch.utils.data.TensorDataset(x, y)
    engine = PrivacyEngine()
    made = engine.make_private(
        module=net,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.5),
        data_loader=torch.utils.data.DataLoader(rows, batch_size=round(len(x) * RATE)),
        noise_multiplier=NOISE,
        max_grad_norm=1.0,
    )
    return engine, *made


def steps(net, optimizer, loader, count: int) -> float:
    """Seconds a step."""
    began, done = time.perf_counter(), 0
    while done < count:
        for x, y in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
            done += 1
            if done == count:
                break
    return (time.perf_counter() - began) / count


def accuracy(net, x: torch.Tensor, y: torch.Tensor) -> float:
    with torch.no_grad():
        return float((net(x).argmax(dim=1) == y).float().mean())


def compare(x: torch.Tensor, y: torch.Tensor, count: int, turns: int) -> dict[str, dict[str, float]]:
    found: dict[str, list[tuple[float, float]]] = {"Opacus alone": [], "under the ledger": []}
    names = [f"patient-{number}" for number in range(len(x))]
    for seed in range(turns):
        _, net, optimizer, loader = prepared(x, y, seed)
        found["Opacus alone"].append((steps(net, optimizer, loader, count), accuracy(net, x, y)))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "book.sqlite"
            ledger.create_ledger(path, site="bench", epsilon=50.0, delta=DELTA)
            _, net, optimizer, loader = prepared(x, y, seed)
            words = {"study": "bench", "purpose": "a comparison", "patients": names, "tool": opacus.TOOL}
            with ledger.open_run(path, **words) as run:
                given = {"records": names, "nominal_patients": len(x), "sampling_rate": RATE, "steps": count}
                optimizer, loader = opacus.charged_training(run, optimizer, loader, **given)
                found["under the ledger"].append((steps(net, optimizer, loader, count), accuracy(net, x, y)))
    medians = {name: [statistics.median(one) for one in zip(*rows, strict=True)] for name, rows in found.items()}
    return {name: {"ms_a_step": 1e3 * pair[0], "accuracy": pair[1]} for name, pair in medians.items()}


def charges(rows: int) -> float:
    """Milliseconds of one charge with its settlement, in a ledger of so many charges before; planned ahead."""
    with tempfile.TemporaryDirectory() as folder:
        path, event = Path(folder) / "book.sqlite", GaussianRelease(1000.0)
        ledger.create_ledger(path, site="bench", epsilon=50.0, delta=DELTA)
        with ledger.open_run(path, study="bench", purpose="many charges", patients=["a"]) as run:
            ahead, taken = [event] * (rows + 10), []
            for number in range(rows + 10):
                began = time.perf_counter()
                with run.charged([event], ahead=ahead) as charge:
                    charge.seal({"a": charge.recorder.gaussian(np.ones(1), 1.0, 1000.0)})
                if number >= rows:
                    taken.append(time.perf_counter() - began)
        return 1e3 * statistics.median(taken)


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--images", type=Path)
    asked.add_argument("--steps", type=int, default=60)
    asked.add_argument("--turns", type=int, default=3)
    asked.add_argument("--rows", default="10,100,400")
    given = asked.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    x, y = data(given.images)
    found = compare(x, y, given.steps, given.turns)
    prv = PRVAccountant()
    prv.history = [(NOISE, RATE, given.steps)]
    costs = {
        "by Opacus": prv.get_epsilon(DELTA),
        "by the ledger": epsilon([SampledGaussian(NOISE, RATE, given.steps)], DELTA),
    }
    taken = {rows: charges(int(rows)) for rows in given.rows.split(",")}
    print(
        f"{len(x)} images of {x.shape[-1]} px, {given.steps} steps, {given.turns} turns, load "
        f"{os.getloadavg()[0]:.1f}\n"
    )
    for name, row in found.items():
        print(f"{name:18} {row['ms_a_step']:8.1f} ms a step   accuracy {row['accuracy']:.3f}")
    ratio = found["under the ledger"]["ms_a_step"] / found["Opacus alone"]["ms_a_step"]
    print(f"{'ratio':18} {ratio:8.2f}")
    print(f"\nepsilon at delta {DELTA:g}: " + ", ".join(f"{who} {value:.4f}" for who, value in costs.items()) + "\n")
    for rows, value in taken.items():
        print(f"a charge after {rows:>5} others {value:8.1f} ms")
    out = Path("bench-out")
    out.mkdir(exist_ok=True)
    said = {"loops": found, "ratio": ratio, "epsilon": costs, "ms_a_charge": taken, "load": os.getloadavg()[0]}
    (out / "ledger_loops.json").write_text(json.dumps(said, indent=2) + "\n")


if __name__ == "__main__":
    main()
