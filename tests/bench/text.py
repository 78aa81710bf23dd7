"""Text that is burned into pixels: how much is found, how many clean films are taken for such, and what a look costs.

    python tests/bench/text.py [--films 600] [--seed 5000]

Phantom films of 512 to 3000 px, 8 to 16 bits, with names, dates and numbers of random syllables drawn in; other films
without, and with side markers alone; and the medical test collection where it lies beside the checkout. The rule was
chosen on seed 1. Intervals are Clopper and Pearson's at 95 %. *Left* is the share of what was written that is still
there after painting over. Seconds are of one core.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import ImageFont
from scipy.stats import binomtest
from support.burned_in import FONTS, film, random_marker, random_text

from sfumato_client.ingest.burned_in import cleared, has_text
from sfumato_common.dicom.opening import open_dicom
from sfumato_common.dicom.pixels import display_values
from sfumato_common.dicom.unreadable import UnreadableError
from sfumato_common.files import write_json
from sfumato_common.phantom import CAMERAS, draw_eyes

SIDES, BITS = (512, 768, 1024, 1536, 2048, 3000), (8, 10, 12, 16)
OTHER_FONTS = ("DejaVuSerif.ttf", "DejaVuSansMono.ttf", "DejaVuSans-Bold.ttf")  # of Linux systems, where they are there
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
# of the collection: names in the pixels, and none; the positron slice has its text in the header alone
WITH_TEXT = ("phi_cr_chest_mono1_rle", "phi_ct_implicit", "us_ybr422_jpeg_30frames", "us_palette_rle_2frames",
             "sc_j2k_text_gbr", "ot_modality_lut", "ot_voi_lut")  # fmt: skip
FEWEST_PIXELS = 128
PAINTED = 5  # of so many films with text one is painted over


def share(hits: int, of: int) -> dict:
    """A share with its interval."""
    if not of:
        return {"hits": 0, "of": 0}
    low, high = binomtest(hits, of).proportion_ci(0.95, "exact")
    return {"hits": hits, "of": of, "share": hits / of, "low": float(low), "high": float(high)}


def shown(name: str, found: dict) -> None:
    if found["of"]:
        print(f"| {name} | {found['hits']} of {found['of']} | {found['share']:.3f} [{found['low']:.3f}, "
              f"{found['high']:.3f}] |", flush=True)  # fmt: skip


def kept(picture: np.ndarray, bits: int) -> np.ndarray:
    """`picture` as a file of so many bits has it."""
    return np.rint(picture * (2**bits - 1)).astype(np.float32) / np.float32(2**bits - 1)


def drawn(films: int, seed: int, heights: tuple[float, float], fonts: Sequence[str]) -> dict:
    """Recall over films with text, whole and by what was drawn."""
    by: dict[str, list[bool]] = defaultdict(list)
    left, refused = list[float](), 0
    for number in range(films):
        rng, side = np.random.default_rng([seed, number]), SIDES[number % len(SIDES)]
        bits = BITS[number // len(SIDES) % len(BITS)]
        picture, text = random_text(film(seed, number, side), rng, heights, fonts)
        picture = kept(picture, bits)
        found = has_text(picture)
        for name in ("all", f"{side} px", f"{bits} bits", f"font {text.font}", f"tone {text.tone}", text.place):
            by[name].append(found)
        if not found or number % PAINTED:
            continue
        try:
            painted = cleared(picture, "mask", lambda note: None)
        except UnreadableError:
            refused += 1
        else:
            left.append(float((text.where & (painted == picture)).sum() / text.where.sum()))
    rows = {name: share(sum(found), len(found)) for name, found in by.items()}
    masked = {
        "painted": len(left) + refused,
        "refused": refused,
        "left_mean": float(np.mean(left)),
        "left_most": float(np.max(left)),
    }
    return {"rows": rows, **masked, "a_tenth_left": sum(one > 0.1 for one in left)}


def clean(films: int, seed: int, change: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> dict:
    """How many films without text are taken for such."""
    wrong = 0
    for number in range(films):
        picture = film(seed, number, SIDES[number % len(SIDES)])
        wrong += has_text(kept(change(picture, np.random.default_rng([seed, number, 1])), BITS[number % len(BITS)]))
    return share(wrong, films)


def eyes(films: int, seed: int) -> dict:
    """The same of colour phantoms at their own size."""
    cameras = [CAMERAS[name] for name in sorted(CAMERAS)]
    pictures = (
        draw_eyes(seed, "film", number + 1, cameras[number % len(cameras)]).images[0] for number in range(films)
    )
    return share(sum(has_text(picture) for picture in pictures), films)


def collection() -> dict:
    """Objects of the collection that decode, of 128 px and more: with text found, and without it taken for such."""
    found, wrong = dict[str, bool](), dict[str, bool]()
    for path in sorted([*SHARED.glob("dicom/*.dcm"), *SHARED.glob("field/dicom/*.dcm")]):
        try:
            picture = display_values(open_dicom(path.open("rb"), lambda text: None))
        except Exception:  # objects without a picture, broken ones
            continue
        if max(picture.shape[:2]) >= FEWEST_PIXELS:
            (found if path.stem in WITH_TEXT else wrong)[path.stem] = has_text(picture)
    return {
        "with": share(sum(found.values()), len(found)),
        "without": share(sum(wrong.values()), len(wrong)),
        "missed": [name for name, hit in found.items() if not hit],
        "wrong": [name for name, hit in wrong.items() if hit],
    }


def archives(most: int) -> Iterator[tuple[str, dict]]:
    """Real films of the collection's archives, of 128 px: too small to hold text, and for the detector to say much."""
    for path in sorted(SHARED.glob("*_128.npz")):
        images = np.load(path)["images"]
        some = images[:: max(1, len(images) // most)][:most]
        yield path.stem, share(sum(has_text(image.astype(np.float32) / np.float32(255)) for image in some), len(some))


def cost(seed: int) -> dict[str, float]:
    """Seconds of a look, by side, of clean films and of those with text."""
    rows = dict[str, float]()
    for side in SIDES:
        pictures = [film(seed, number, side) for number in range(6)]
        pictures += [random_text(one, np.random.default_rng([seed, side]))[0] for one in pictures]
        began = time.process_time()
        for picture in pictures:
            has_text(picture)
        rows[f"{side} px"] = (time.process_time() - began) / len(pictures)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Text in pixels: recall, false alarms, cost")
    parser.add_argument("--films", type=int, default=600)
    parser.add_argument("--seed", type=int, default=5000)
    given = parser.parse_args()
    few = max(1, given.films // 5)
    results: dict = {"films": given.films, "seed": given.seed}
    print("| drawn text found | count | share |\n|---|---|---|")
    results["drawn"] = drawn(given.films, given.seed, (0.008, 0.03), FONTS)
    for name, row in results["drawn"]["rows"].items():
        shown(name, row)
    results["small"] = drawn(few, given.seed + 1, (0.004, 0.008), FONTS)
    shown("letters of 0.4 to 0.8 % of the side", results["small"]["rows"]["all"])
    others = [name for name in OTHER_FONTS if _is_there(name)]
    if others:
        results["other_fonts"] = drawn(few, given.seed + 2, (0.008, 0.03), others)
        shown("other fonts (DejaVu)", results["other_fonts"]["rows"]["all"])
    masked = results["drawn"]
    print(f"painted over: {masked['refused']} of {masked['painted']} refused after it; "
          f"left {masked['left_mean']:.4f} on average, "
          f"{masked['left_most']:.3f} at most, more than a tenth in {masked['a_tenth_left']}")  # fmt: skip
    print("| clean, taken for text | count | share |\n|---|---|---|")
    results["clean"] = clean(given.films, given.seed + 3, lambda picture, rng: picture)
    shown("phantom films", results["clean"])
    results["marked"] = clean(given.films, given.seed + 4, random_marker)
    shown("phantom films with a marker", results["marked"])
    results["eyes"] = eyes(few, given.seed)
    shown("phantom eyes", results["eyes"])
    if SHARED.exists():
        results["collection"] = collection()
        shown("real objects with text (found)", results["collection"]["with"])
        shown("real objects without", results["collection"]["without"])
        print("missed:", results["collection"]["missed"], "wrong:", results["collection"]["wrong"])
        results["archives"] = dict(archives(few))
        for name, row in results["archives"].items():
            shown(f"{name}, films of 128 px", row)
    results["seconds"] = cost(given.seed)
    print("seconds an image on one core: " + ", ".join(f"{name} {row:.2f}" for name, row in results["seconds"].items()))
    write_json(Path("bench-out/text.json"), results)


def _is_there(font: str) -> bool:
    try:
        ImageFont.truetype(font, 12)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
