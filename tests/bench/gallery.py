"""A gallery of published sets by size and epsilon: contact sheets at the images' own size, and what each set is worth.

    python tests/bench/gallery.py [--sizes 64,128] [--epsilons 1,3,10,none] [--out docs/gallery] [--work FOLDER]

Each set is a whole study in one process, from homes, keys and ledgers to gate, packages and signatures; only Flower is
left out: three made-up hospitals of 300 phantom patients each, the same at every epsilon, and the shipped plan
`configs/chest-128.yaml` at that size and epsilon, with secure noise. `none` is the same plan under `private: false`:
what the model can show with no noise at all. A set that `--work` holds is not made again.

A sheet's first row has phantoms (people who do not exist), each further row one hospital's published images, normal
left, opacity right: the first of each label by their random names, nobody picked them. The figure is the AUC, on
phantoms whom no site has, of a classifier that was trained on the set, and of one that was trained on 240 other
phantoms (`sfumato dataset evaluate --public --quick`, one seed). Writes gallery-SIZE-EPSILON.png and a table, JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from sfumato_server.pictures import COLUMNS, mosaic
from support.made_sets import published_set

from sfumato_client.ingest import SiteImage
from sfumato_common.phantom import MODALITIES, arrays
from sfumato_common.study.load import load_plan
from sfumato_common.study.plan import Plan
from sfumato_server.demo.measured import public_index
from sfumato_server.publish.reading import open_folder

ROOT = Path(__file__).parents[2]
SITES, PATIENTS, SEED = ("alder", "birch", "cedar"), 300, 2303
SECONDS = 3000


def plan_of(size: int, epsilon: str, folder: Path) -> tuple[Plan, dict[str, Any]]:
    """The shipped plan at that size and epsilon, its noise computed, and a policy that allows it."""
    value = yaml.safe_load((ROOT / "configs" / "chest-128.yaml").read_text())
    policy = yaml.safe_load((ROOT / "configs" / "policy.yaml").read_text()) | {"answer_interval_s": 0.0}
    value |= {"study": f"gallery-{size}", "image": {"size": size, "channels": 1}}
    del policy["site"], value["utility"]  # the bench measures the set itself
    if epsilon == "none":
        del value["budget"]
        value |= {"private": False, "stages": [{**value["stages"][0], "noise_multiplier": 0.001}]}
        policy["nonprivate_studies"] = [value["study"]]
    else:
        value["privacy"]["epsilon"] = float(epsilon)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
    return load_plan(folder / "plan.yaml"), policy


@cache
def hospitals(size: int) -> dict[str, list[SiteImage]]:
    """Phantom patients of the three hospitals, each on a device of its own."""
    held = dict[str, list[SiteImage]]()
    for site, device in zip(SITES, sorted(MODALITIES["chest"].systems), strict=True):
        images, labels, people = arrays(SEED, PATIENTS, size, site, device)
        rows = zip(images, labels.tolist(), people.tolist(), strict=True)
        held[site] = [SiteImage(pixels, label, f"{site}-{person}", None) for pixels, label, person in rows]
    return held


def measured(published: Path, index: Path, out: Path) -> None:
    """What the set is worth, by the command that a researcher has. Raises CalledProcessError."""
    program = str(Path(sys.executable).parent / "sfumato")
    command = [program, "dataset", "evaluate", str(published), "--real", str(index), "--public", "--quick"]
    command += ["--seeds", "1", "--figures", "methods", "--out", str(out / "evaluation.json")]
    subprocess.run(command, check=True, timeout=SECONDS, capture_output=True)


def sheet(published: Path, index: Path, target: Path) -> None:
    """A row of phantoms, then a row a site, at the images' own size."""
    folder = open_folder(published)
    order = sorted(folder.plan.labels)[:2]
    half = COLUMNS // len(order)
    with index.open() as stream:
        rows = list(csv.DictReader(stream))
    pixels = np.load(index.with_name("phantom.npz"))["images"]
    first = {label: [int(row["row"]) for row in rows if row["label"] == label][:half] for label in order}
    found: dict[str, dict[str, list[Any]]] = {}
    for entry in folder.entries():
        held = found.setdefault(entry.site, {label: [] for label in order})
        if len(held[entry.label]) < half:
            held[entry.label].append(folder.image(entry).pixels)
    tiles = [[pixels[row] for label in order for row in first[label]]]
    tiles += [[tile for label in order for tile in held[label]] for _, held in sorted(found.items())]
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mosaic(tiles, least_width=1)).save(target, optimize=True)


def made(work: Path, size: int, epsilon: str) -> dict[str, Any]:
    """One set with its figure: the AUC of who learned from it, with its interval, and of who learned from phantoms."""
    out = work / f"{size}-{epsilon}"
    if not (out / "evaluation.json").exists():
        plan, policy = plan_of(size, epsilon, out)
        published_set(out / "study", plan, policy, hospitals(size))
        index = public_index(work / f"public-{size}", plan, "chest")
        measured(out / "study" / "results" / "published", index, out)
    (figure,) = json.loads((out / "evaluation.json").read_text())["figures"]
    return {"size": size, "epsilon": epsilon, **{name: figure[name] for name in ("value", "low", "high", "real")}}


def main() -> None:
    """Make every set, draw its sheet, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="64,128")
    parser.add_argument("--epsilons", default="1,3,10,none")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "gallery")
    parser.add_argument("--work", type=Path, default=ROOT / "bench-out" / "gallery")
    asked = parser.parse_args()
    sets = []
    print("| pixels | epsilon | AUC (95 %) | AUC of phantoms |\n|---|---|---|---|")
    for size in map(int, asked.sizes.split(",")):
        for epsilon in asked.epsilons.split(","):
            sets.append(row := made(asked.work, size, epsilon))
            published = asked.work / f"{size}-{epsilon}" / "study" / "results" / "published"
            index = asked.work / f"public-{size}" / "phantoms.csv"
            sheet(published, index, asked.out / f"gallery-{size}-{epsilon}.png")
            shown = f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f}) | {row['real']:.3f}"
            print(f"| {size} | {epsilon} | {shown} |", flush=True)
    target = ROOT / "bench-out" / "gallery.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(sets, indent=2))


if __name__ == "__main__":
    main()
