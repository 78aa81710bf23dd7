"""How much of one patient a centroid of five real patients tells, in each space, with and without the rule on that.

    python tests/bench/influence.py --size 64 --stylegan2 generator.safetensors
    python tests/bench/influence.py --size 128 --codec FOLDER

Every centroid is made again without each of its patients, by the product's own code. `multiple`: the largest move of
any ring of frequencies, less a grey level, over what that patient would move an average of pixels; the rule's bound is
2. Then two attacks, by whoever holds all other members' images and asks how much of the direction from their average
to the patient's image the release shows, where an average shows 1 / k: of `pixels` (a matched filter), and of a given
encoder's features, which the rule does not look at; there an average of pixels itself is what the figure is divided by.
`above 2`: patients of whom the release shows more than twice what the average of pixels does, and more than that
average does of the patient whom it shows best.

The encoder needs `pip install 'sfumato[encoders]'`. Prints a table and writes bench-out/influence-SIZE.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import spaces
import torch
from cohorts import ROOT, BenchCohort
from rich.console import Console
from rich.table import Table
from space_models import Models, cohort_of
from utility_scores import default_encoder

from sfumato_client.anonymise import anonymise, influence
from sfumato_client.anonymise.groups import Chosen
from sfumato_client.anonymise.influence import KEPT, LARGEST_INFLUENCE, averages_without, by_ring
from sfumato_common.errors import ReleaseRefused
from sfumato_common.files import write_json
from sfumato_common.metrics.features import encoded_features
from sfumato_common.types import ByteImages, to_bytes, to_unit_range

Floats = npt.NDArray[np.float64]
COLUMNS = ("multiple, made", "multiple, released", "pixels", "pixels, most", "features", "above 2")


class Watched:
    """`restrain`, keeping what a method made of each group, and what became of it."""

    def __init__(self) -> None:
        self.found: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], Floats, float | None]] = []
        self._restrain = influence.restrain

    def __call__(self, plain: Any, made: Any, allowed: Floats, bits: int) -> ByteImages:
        try:
            image = self._restrain(plain, made, allowed, bits)
        except ReleaseRefused:
            self.found.append((plain, made, allowed, None))
            kept: ByteImages = to_bytes(plain, bits)[0]
            return kept
        share = next(s for s in KEPT if np.array_equal(to_bytes(plain + s * (made - plain), bits)[0], image))
        self.found.append((plain, made, allowed, share))
        return image


def multiple(images: ByteImages, allowed: Floats) -> float:
    """The largest move of any member in any ring, less a grey level, over an average's."""
    seen = to_unit_range(images)
    moved = np.maximum(by_ring(seen[1:] - seen[:1]) - 2.0 / 255, 0.0)
    return float((moved / np.maximum(allowed / LARGEST_INFLUENCE, 1e-9)).max())


def shown(moved: Floats, towards: Floats) -> Floats:
    """How much of each direction [M, P] the moves [M, P] show: 1 is all of it."""
    return np.asarray((moved * towards).sum(axis=1) / np.square(towards).sum(axis=1))


def measure(cohort: BenchCohort, space: str, models: Models, refinement: int) -> dict[str, Any]:
    """One row: every site's groups."""
    encoder, rows, kept = default_encoder(cohort.size), [], []
    for site, job in spaces.jobs_of(cohort, space, models, refinement=refinement).items():
        watched, part = Watched(), cohort.train[site]
        with patch.object(influence, "restrain", watched):
            anonymise(job)
        (chosen,) = (value for (kind, _), value in job.release.shared.items() if kind is Chosen)
        for group, (plain, made, allowed, share) in zip(chosen.groups, watched.found, strict=True):
            images = to_bytes(plain + (share or 0.0) * (made - plain))
            averages = to_bytes(averages_without(part, group.members))
            members = np.stack([part.images_of(patient)[0].mean(axis=0) for patient in group.members.tolist()])
            row = {"multiple, made": multiple(to_bytes(made), allowed), "multiple, released": multiple(images, allowed)}
            by_pixels = [_flat(some) for some in (images, averages, members.round().astype(np.uint8))]
            in_features = [
                encoded_features(some, encoder) for some in (images, averages, members.round().astype(np.uint8))
            ]
            shares = []
            for of, without, own in (by_pixels, in_features):
                towards = own - without[1:]
                shares.append([shown(some[:1] - some[1:], towards) for some in (of, without)])
            pixels, features = (one / average.mean() for one, average in shares)
            limit = 2.0 * shares[1][1].clip(min=shares[1][1].max() / 2.0)
            row |= {"pixels": float(pixels.mean()), "pixels, most": float(pixels.max())}
            row |= {"features": float(features.mean()), "above 2": float((shares[1][0] > limit).mean())}
            rows.append(row)
            kept.append(share)
    found = {name: float(np.mean([row[name] for row in rows])) for name in COLUMNS}
    most = {name: float(np.max([row[name] for row in rows])) for name in (*COLUMNS[:2], "pixels, most")}
    whole = {"groups": len(rows), "kept": [share for share in kept if share is not None], "refused": kept.count(None)}
    return {**found, "most": most, **whole}


def _flat(images: ByteImages) -> Floats:
    return np.asarray(to_unit_range(images), dtype=np.float64).reshape(len(images), -1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="how much of one patient a centroid tells")
    parser.add_argument("--size", type=int, default=64, choices=(64, 128))
    parser.add_argument("--patients", type=int, default=60, help="the most of one site")
    parser.add_argument("--phantoms", type=int, help="of the appearance release's pool; without it as a plan has them")
    parser.add_argument("--codec", type=Path, help="folder of a codec of that size")
    parser.add_argument("--stylegan2", type=Path, help="generator.safetensors of three sites at 64 px")
    parser.add_argument("--refinement", type=int, default=20, help="steps of Adam from an image to its code there")
    parser.add_argument("--spaces", type=lambda text: text.split(","), help="some of appearance, gan, codec, stylegan2")
    options = parser.parse_args()
    torch.set_num_threads(1)
    models = Models(phantoms=options.phantoms, codec=options.codec, stylegan2=options.stylegan2)
    cohort, rows = cohort_of(f"sites-{options.size}", options.patients), {}
    table = Table("space", "groups", "drawn back", "refused", *COLUMNS, title=f"centroids of five, {options.size} px")
    for space in options.spaces or models.spaces:
        rows[space] = row = measure(cohort, space, models, options.refinement)
        back = sum(share < 1.0 for share in row["kept"])
        table.add_row(
            space, str(row["groups"]), str(back), str(row["refused"]), *(f"{row[name]:.2f}" for name in COLUMNS)
        )
        print(f"{space}: {row}", flush=True)
    write_json(
        ROOT / "bench-out" / f"influence-{options.size}.json",
        {"size": options.size, "patients": options.patients, "rows": rows},
    )
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
