"""What the limit of near-duplicates finds and what it spares, on public images; and what the search of a pool costs.

    python tests/bench/near_duplicates.py [--sizes 28 64 128] [--patients 1500] [--fundi 200] [--pool 28:20000 ...]
        [--sets PUBLISHED ...] [--archives IMAGES.npz ...]

*Merged* are pairs of phantom patients, one image each, that lie under the limit: none should. *Found* is the share of
altered copies that lie under it: noise of so many grey levels (standard deviation), a shift by one pixel, JPEG, 20 grey
levels more light, a fifth less contrast, a gamma of 0.8. A *usual* distance is the median of two images; a set of low
variety is the phantoms drawn towards their mean until that is .1. *Left out* of a published set or an archive is what
the pool would leave out, each image held against all others. The pool's search runs in a process of its own.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sfumato_common.codec.public_images import read_public
from sfumato_common.files import write_json
from sfumato_common.metrics.alike import LIMIT, PART, prints, usual_distance, views
from sfumato_common.types import ByteImages

OUT = Path(__file__).resolve().parents[2] / "bench-out"


def jpeg(image: ByteImages, quality: int) -> ByteImages:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def _noise(level: int) -> Callable[[ByteImages], ByteImages]:
    return lambda x: _bytes(x + np.random.default_rng(level).normal(0, level, x.shape))


def _bytes(values: Any) -> ByteImages:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


ALTERED: dict[str, Callable[[ByteImages], ByteImages]] = {
    "noise 2": _noise(2),
    "noise 5": _noise(5),
    "noise 10": _noise(10),
    "shift": lambda x: np.roll(x, (1, -1), (1, 2)),
    "jpeg 75": lambda x: np.stack([jpeg(one, 75) for one in x]),
    "light": lambda x: _bytes(x.astype(float) + 20),
    "contrast": lambda x: _bytes(x * 0.8),
    "gamma": lambda x: _bytes(255 * (x / 255) ** 0.8),
}


def nearest(images: ByteImages) -> tuple[Any, float, int]:
    """Distance of each image to the nearest other, the usual distance, and how many pairs lie under the limit."""
    seen = views(images)
    own = prints(seen)
    best, pairs = np.full(len(images), -1.0, np.float32), np.zeros((len(images), len(images)), bool)
    for view in range(seen.shape[1]):
        products = seen[:, view] @ own.T
        np.fill_diagonal(products, -1)
        best = np.maximum(best, products.max(1))
        pairs |= products > 1 - LIMIT**2 / 2
    return np.sqrt(np.maximum(2 - 2 * best, 0)), usual_distance(own), int(np.tril(pairs | pairs.T, -1).sum())


def phantom_row(size: int, channels: int, patients: int) -> dict[str, Any]:
    """A line of the table: one image each of so many phantom patients."""
    found = read_public(["phantom"], size, channels, patients=patients, seed=11)
    images = found.images[np.unique(found.patient_index, return_index=True)[1]]
    distances, usual, merged = nearest(images)
    own = prints(views(images))
    recall = {}
    for name, alter in ALTERED.items():
        products = (views(alter(images)) @ own[:, :, None])[..., 0].max(1)
        recall[name] = float((np.sqrt(np.maximum(2 - 2 * products, 0)) < LIMIT).mean())
    count = len(images)
    return {
        "images": "fundi" if channels == 3 else "radiographs",
        "side": size,
        "patients": count,
        "pairs": count * (count - 1) // 2,
        "merged": merged,
        "least": float(distances.min()),
        "usual": usual,
        "found": recall,
        "low_variety_left_out": low_variety(images, usual),
    }


def low_variety(images: ByteImages, usual: float) -> float:
    """Share of the phantoms that are left out where all are drawn towards their mean, so that all are alike."""
    mean = images.astype(np.float32).mean(0)
    alike = _bytes(mean + (0.1 / usual) * (images - mean))
    distances, now, _ = nearest(alike)
    return float((distances < min(LIMIT, PART * now)).mean())


def set_row(name: str, images: ByteImages) -> dict[str, Any]:
    distances, usual, _ = nearest(images)
    limit = min(LIMIT, PART * usual)
    return {"set": name, "images": len(images), "usual": usual, "least": float(distances.min()), "limit": limit} | {
        "near": float((distances < limit).mean())
    }


def published_images(folder: Path, most: int = 4000) -> ByteImages:
    from sfumato_server.publish import open_folder

    return np.stack([image.pixels for image in islice(open_folder(folder).images(), most)])


def archive_images(path: Path, most: int = 4000) -> ByteImages:
    images = np.load(path, allow_pickle=False)["images"]
    chosen = np.sort(np.random.default_rng(0).choice(len(images), min(most, len(images)), replace=False))
    return np.asarray(images[chosen])


def pool_row(word: str) -> dict[str, Any]:
    """Seconds and memory of the search in a pool of so many images of noise, in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--one", word], stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout))


def one_pool(word: str) -> None:
    import publish as bench

    from sfumato_server.enrol import Registry
    from sfumato_server.pool import pool_packages
    from sfumato_server.pool.near import find_near

    side, number, *kind = word.split(":")
    size, count = int(side), int(number)
    if not kind:
        bench.image = smooth
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        plan = bench.plan_of(size, count, 2).model_copy(update={"near_duplicates": "stay"})
        bench.make(work, plan)
        began = time.process_time()
        pool = pool_packages(work / "coordinator", plan, Registry(work / "coordinator"))
        pooled = time.process_time()
        find_near(pool, [], None)
        ended = time.process_time()
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1e3  # type: ignore[index]
    row = {
        "side": size,
        "images": count,
        "kind": [*kind, "smooth"][0],
        "pool_s": pooled - began,
        "near_s": ended - pooled,
        "peak_mb": peak,
    }
    print(json.dumps(row))


def smooth(name: str, size: int, rng: np.random.Generator) -> Any:
    """A random field with most of its power at low frequencies, as images of models have; noise is the worst case."""
    from sfumato_common.imaging import area_matrix, encode_png
    from sfumato_common.package import PackageImage
    from sfumato_common.package.manifest import ImageFacts

    field = np.zeros((size, size), np.float32)
    for cells in (4, 7, size):
        wide = area_matrix(size, cells).T * (size / cells)
        field += wide @ rng.normal(0, 1 / cells, (cells, cells)).astype(np.float32) @ wide.T
    label = ("abnormal", "normal")[int(name[0], 16) % 2]
    facts = ImageFacts(name=name, label=label, model="spectral", method="dp-sampling", guarantee="formal")
    return PackageImage(facts, encode_png(_bytes(128 + 150 * field)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[28, 64, 128])
    parser.add_argument("--patients", type=int, default=1500, help="phantom radiographs")
    parser.add_argument("--fundi", type=int, default=200, help="phantom fundi")
    parser.add_argument("--pool", nargs="*", default=["28:20000", "28:20000:noise"], help="SIDE:IMAGES[:noise]")
    parser.add_argument("--sets", type=Path, nargs="*", default=[], help="published sets")
    parser.add_argument("--archives", type=Path, nargs="*", default=[], help="npz of public images")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        one_pool(given.one)
        return
    forms = [(size, channels) for channels in (1, 3) for size in given.sizes]
    rows = [phantom_row(size, own, given.patients if own == 1 else given.fundi) for size, own in forms]
    sets = [set_row(path.parent.name, published_images(path)) for path in given.sets]
    sets += [set_row(path.stem, archive_images(path)) for path in given.archives]
    pools = [pool_row(word) for word in given.pool]
    show(rows, sets, pools)
    write_json(OUT / "near_duplicates.json", {"limit": LIMIT, "phantoms": rows, "sets": sets, "pools": pools})


def show(rows: list[dict[str, Any]], sets: list[dict[str, Any]], pools: list[dict[str, Any]]) -> None:
    print(f"limit {LIMIT}, or {PART:g} of the usual distance; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    names = " ".join(f"{name:>8}" for name in ALTERED)
    print(f"{'images':<12} {'side':>4} {'patients':>8} {'merged':>6} {'least':>6} {'usual':>6} {names} {'alike':>6}")
    for row in rows:
        found = " ".join(f"{share:>8.1%}" for share in row["found"].values())
        print(
            f"{row['images']:<12} {row['side']:>4} {row['patients']:>8} {row['merged']:>6} {row['least']:>6.3f} "
            f"{row['usual']:>6.3f} {found} {row['low_variety_left_out']:>6.1%}"
        )
    for own in sets:
        said = f"usual {own['usual']:.3f}, least {own['least']:.3f}, limit {own['limit']:.3f}, near {own['near']:.2%}"
        print(f"{own['set']}: {own['images']} images, {said}")
    for own in pools:
        rate = 1e6 * own["near_s"] / own["images"]
        said = f"pooled {own['pool_s']:.1f} s, looked through {own['near_s']:.1f} s ({rate:.0f} us an image)"
        print(f"{own['side']} px, {own['images']} images of {own['kind']}: {said}, peak {own['peak_mb']:.0f} MB")


if __name__ == "__main__":
    main()
