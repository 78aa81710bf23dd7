"""Contact sheets of all that is averaged and walked in: chest films and fundi at 64 and 128 px, at their own size.

    python tests/bench/sheet.py --models FOLDER [--cohorts sites-64,sites-128,fundi-64,fundi-128] [--out docs]

`FOLDER/COHORT/codec` is a codec's folder, `FOLDER/COHORT/stylegan2.safetensors` weights as `make bench NAME=stylegan2`
leaves them; what is not there is left out, and said. Both are of the cohorts of those names: films of three sites, and
drawn fundi of three cameras. The real images are three open collections of films, and sixty open photographs of eyes.

Above: real images, the codec's reconstructions of them, draws of the appearance release, draws of the StyleGAN2. Below:
two groups of five patients, and for each space the first one's centroid, its k-SALSA image, and five points of the walk
between both groups, straight and below it bent by PLAN (`elastic: relative`). All spaces average the same groups, of
one site; the groups are evenly spaced among the site's, nobody picked them. Centroids and walks are held against what
they are without each patient, as in a release; the k-SALSA image is as the method makes it, because k + 1 of them take
k + 1 times as long. Few steps, and few draws for a StyleGAN2's codes, so that a processor draws all in minutes. Writes
sheet-COHORT.png.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from cohorts import BenchCohort, pooled
from in_process import synthetic_set
from methods_models import GIVEN, given
from PIL import Image, ImageDraw
from space_models import SEED, Models, cohort_of, job_of, released

from sfumato_client.anonymise import Job
from sfumato_client.anonymise.groups import Chosen, Group, Grouping, groups_of
from sfumato_client.anonymise.identities import Identities, identities_of
from sfumato_client.anonymise.influence import averages_without, noise_of
from sfumato_client.anonymise.inversion import space_of
from sfumato_client.anonymise.k_salsa import align_groups
from sfumato_client.anonymise.k_same import k_same
from sfumato_client.anonymise.linear_walk import Walks, restrained_points
from sfumato_client.anonymise.patients import Patients, averages_of, patients_of
from sfumato_client.anonymise.plan_walk import bend_on_all_cores
from sfumato_client.anonymise.self_supervised import ContrastiveNet, embedding_of
from sfumato_client.dataset import Cohort
from sfumato_common.codec.training import best_device
from sfumato_common.generators.stylegan2 import space as stylegan2
from sfumato_common.study.plan import Plan
from sfumato_common.study.release import KSame
from sfumato_common.types import ByteImages, to_bytes
from sfumato_server.coordinator.codec import read_coder

COHORTS = ("sites-64", "sites-128", "fundi-64", "fundi-128")
# StyleGAN2 of fundi learned from drawn ones: their cameras and labels are its conditions
CAMERAS = {"garnet": 250, "opal": 250, "pearl": 250}
EYES = ("normal", "retinopathy")
K, POINTS, COLUMNS = 5, 5, 8
GAP, MARGIN, LINE = 2, 118, 14
NAMES = {"gan": "W (spectral)", "appearance": "appearance", "codec": "codec", "stylegan2": "StyleGAN2"}
HEADS = ("centroid", "k-SALSA", "", *(f"walk, {step} of {POINTS + 1}" for step in range(1, POINTS + 1)))

Tile = ByteImages | None


@dataclass
class Sheet:
    """Rows of tiles of one size, each with words at its left; a row of words alone stands above what it names."""

    size: int
    rows: list[tuple[str, Sequence[Tile] | Sequence[str]]] = field(default_factory=list)

    def add(self, words: str, tiles: Sequence[Tile] | Sequence[str]) -> None:
        """One row more, of tiles or of words above the next one's."""
        self.rows.append((words, tiles))

    def drawn(self) -> Image.Image:
        """The picture, images at their own size."""
        step = self.size + GAP
        heights = [LINE if isinstance(tiles[0], str) else step for _, tiles in self.rows]
        picture = Image.new("RGB", (MARGIN + COLUMNS * step, sum(heights)), "white")
        pen, down = ImageDraw.Draw(picture), 0
        for height, (words, tiles) in zip(heights, self.rows, strict=True):
            pen.text((2, down + 1), words, fill="black", spacing=2)
            for column, tile in enumerate(tiles):
                place = (MARGIN + column * step, down)
                if isinstance(tile, str):
                    pen.text((place[0], down + 1), tile, fill="black")
                elif tile is not None:
                    picture.paste(Image.fromarray(tile), place)
            down += height
        grey = all(tile.ndim == 2 for _, tiles in self.rows for tile in tiles if isinstance(tile, np.ndarray))
        return picture.convert("L") if grey else picture


def models_in(folder: Path, name: str, options: argparse.Namespace) -> Models:
    """The given models of a cohort that are there."""
    places = [given(folder, name, kind, 1) for kind in GIVEN]
    found = Models(options.epsilon, options.detail, options.phantoms, *places)
    for kind in GIVEN:
        if getattr(found, kind) is None:
            print(f"{name}: no {kind} in the folder of models; its rows are left out", flush=True)
    return found


def model_of(cohort: BenchCohort, space: str, models: Models) -> tuple[Plan, dict[str, Any], str]:
    """A space's plan, what it released, and the site of the plan at which the groups' patients are."""
    if space == "stylegan2" and cohort.name == "fundus":
        drawn = BenchCohort("fundi", cohort.size, 3, EYES, CAMERAS, {})
        return *released(drawn, space, models), next(iter(CAMERAS))
    return *released(cohort, space, models), next(iter(cohort.train))


def draws_of(plan: Plan, kind: str, arrays: dict[str, Any]) -> list[ByteImages]:
    """Images of a model's prior."""
    return list(synthetic_set(plan, kind, arrays, COLUMNS, SEED)[0])


def two_groups(job: Job[Any]) -> tuple[Cohort, int]:
    """Ten patients in two groups as they come of all the site's, each with the one image that enters, and their label.

    Of the label that most groups have, the first group and the middle one.
    """
    groups = groups_of(job)
    label = int(np.bincount([group.label for group in groups]).argmax())
    own = [group.members[:K] for group in groups if group.label == label]
    patients = np.concatenate([own[0], own[len(own) // 2]])
    images = np.stack([job.cohort.images_of(patient)[0][0] for patient in patients.tolist()])
    return Cohort(images, np.full(2 * K, label), np.arange(2 * K)), label


def _terms(space: str, method: str, views: str, refinement: int = 0) -> dict[str, Any]:
    terms = {"method": method, "model": space, "k": K, "distance": "image", "views": views}
    return terms if space == "appearance" else {**terms, "encoder_steps": 0, "refinement_steps": refinement}


class Averages:
    """Two groups in one space: centroid, k-SALSA image and both walks."""

    def __init__(
        self, cohort: BenchCohort, model: tuple[Plan, dict[str, Any], str], space: str, few: Cohort, label: int
    ) -> None:
        self.plan, self.arrays, self.site = model
        self.cohort, self.space, self.few, self.label = cohort, space, few, label
        self.shared: dict[Any, Any] = {}

    def job(self, options: argparse.Namespace, method: str, **terms: Any) -> Job[Any]:
        """An item's job whose cohort is the two groups."""
        asked = {**_terms(self.space, method, "mean", options.refinement), **terms}
        job = job_of(self.plan, self.site, self.arrays, self.few, **asked)
        first, last = np.arange(K), np.arange(K, 2 * K)
        self.shared[Grouping, job.item.grouping] = Grouping([Group(first, self.label), Group(last, self.label)])
        return replace(job, release=replace(job.release, shared=self.shared))

    def rows(self, options: argparse.Namespace, nets: tuple[ContrastiveNet, Identities]) -> list[list[Tile]]:
        """Centroid, k-SALSA image, nothing, and the points of the straight walk; below, those of PLAN's."""
        job = self.job(options, "plan-walk", images=POINTS, points=POINTS, steps=options.walk_steps, elastic="relative")
        space, patients, draws = space_of(job), patients_of(job), job.streams.published
        groups = [torch.arange(K), torch.arange(K, 2 * K)]
        means = averages_of(patients, groups)
        walks = Walks(
            means.codes[None],
            (torch.arange(1, POINTS + 1) / (POINTS + 1))[None],
            torch.ones(1, POINTS, dtype=torch.bool),
            torch.tensor([self.label]),
            means.components[:1],
            2 * K,
            [(groups[0].numpy(), groups[1].numpy())],
        )
        noise = noise_of(space, walks.components_of_points().to(space.device), draws)
        straight = restrained_points(job, space, walks, walks.linear(), noise)
        bent = restrained_points(job, space, walks, bend_on_all_cores(space, walks, noise, nets[1], job.item), noise)
        first = [self.centroid(options), self.k_salsa(options, nets[0], patients)]
        return [[*first, None, *straight], [None] * 3 + list(bent)]

    def centroid(self, options: argparse.Namespace) -> ByteImages:
        """The first group's; k-same releases groups in random order."""
        job = self.job(options, "k-same", images=2)
        images, chosen = k_same(job).images, job.release.shared[Chosen, (KSame, self.space)]
        assert isinstance(chosen, Chosen), "what is shared is found by its type"
        (image,) = (image for image, group in zip(images, chosen.groups, strict=True) if 0 in group.members)
        return image

    def k_salsa(self, options: argparse.Namespace, net: ContrastiveNet, patients: Patients) -> ByteImages:
        """The first group's image, as the method makes it."""
        job = self.job(options, "k-salsa", images=1, steps=options.k_salsa_steps)
        space, group = space_of(job), [torch.arange(K)]
        component = averages_of(patients, group).components
        noise = noise_of(space, component, job.streams.published)
        _, codes = align_groups(
            space, net.to(space.device), patients, group, noise, torch.zeros(1, dtype=torch.int64), job.item
        )
        with torch.no_grad():
            made = space.decode(codes, component.to(space.device), noise)
        image: ByteImages = to_bytes(made.cpu().numpy())[0]
        return image


def draw(name: str, options: argparse.Namespace) -> Image.Image:
    """The sheet of a cohort."""
    kind, _, size = name.partition("-")
    models = models_in(options.models, name, options)
    cohort = cohort_of(f"{'fundus' if kind == 'fundi' else kind}-{size}", options.patients)
    sheet = Sheet(cohort.size)
    found = {space: model_of(cohort, space, models) for space in models.spaces}
    upper(sheet, cohort, models, found)
    (plan, arrays, site), terms = found["gan"], _terms("gan", "plan-walk", "apart" if kind == "fundi" else "mean")
    # groups, and one pair of classifiers and one embedding of all the site's patients: they are of no space
    whole = job_of(plan, site, arrays, cohort.train[site], **terms, images=1)
    few, label = two_groups(whole)
    nets = embedding_of(whole, options.embedding_steps), identities_of(whole, options.classifier_steps)
    sheet.add("", ["a group's patients, one image each", *[""] * (COLUMNS - 2), "average"])
    for words, members in (("group 1, real", np.arange(K)), ("group 2, real", np.arange(K, 2 * K))):
        average = to_bytes(averages_without(few, members)[:1])[0]
        sheet.add(words, [*few.images[members], *[None] * (COLUMNS - K - 1), average])
    sheet.add("", HEADS)
    for space in sorted(models.spaces, key=list(NAMES).index):
        began = time.process_time()
        above, below = Averages(cohort, found[space], space, few, label).rows(options, nets)
        sheet.add(f"{NAMES[space]}:\nstraight walk", above)
        sheet.add(f"{NAMES[space]}:\nwalk bent by PLAN", below)
        print(f"{name}, {space}: {time.process_time() - began:.0f} s", flush=True)
    return sheet.drawn()


def upper(
    sheet: Sheet, cohort: BenchCohort, models: Models, found: dict[str, tuple[Plan, dict[str, Any], str]]
) -> None:
    """Real images, a codec's reconstructions, and what models draw."""
    images = pooled(cohort.train)[0]
    # of every site in turn
    order = [np.random.default_rng(SEED).permutation(len(part.labels)) for part in cohort.train.values()]
    starts = np.cumsum([0, *(len(part) for part in order)])
    turns = [starts[n % len(order)] + order[n % len(order)][n // len(order)] for n in range(COLUMNS)]
    real = images[turns]
    sheet.add("real images", list(real))
    if models.codec is not None:
        coder = read_coder(models.codec, None, cohort.size, cohort.channels)
        sheet.add(f"codec: the same in\n{coder.numbers} numbers", list(to_bytes(coder.reconstruct(real).numpy())))
    plan, arrays, _ = found["appearance"]
    sheet.add(f"appearance: drawn,\nepsilon {models.epsilon:g}", draws_of(plan, "appearance", arrays))
    if "stylegan2" in found:
        plan, arrays, _ = found["stylegan2"]
        sheet.add("StyleGAN2: drawn,\nno privacy", draws_of(plan, "stylegan2", arrays))


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the sheets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder of given models, by cohort")
    parser.add_argument("--cohorts", type=lambda text: text.split(","), default=list(COHORTS))
    parser.add_argument("--out", type=Path, default=Path("docs"))
    parser.add_argument("--patients", type=int, default=150, help="the most of one site")
    parser.add_argument("--phantoms", type=int, default=24, help="of the appearance release's pool")
    parser.add_argument("--epsilon", type=float, default=10.0)
    parser.add_argument("--detail", default="phantom", choices=["phantom", "mixed", "noise"])
    parser.add_argument("--refinement", type=int, default=12, help="steps of Adam to a code of the StyleGAN2")
    parser.add_argument(
        "--fit-draws", type=int, default=256, help="of the StyleGAN2, for its codes; a site takes 1,024"
    )
    parser.add_argument("--k-salsa-steps", type=int, default=30, help="the paper's are 100")
    parser.add_argument("--walk-steps", type=int, default=12, help="of PLAN; the paper's are 500")
    parser.add_argument("--embedding-steps", type=int, default=30, help="of k-SALSA's network")
    parser.add_argument("--classifier-steps", type=int, default=100, help="of PLAN's classifiers")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(f"on {best_device()}", flush=True)
    for name in options.cohorts:
        path = options.out / f"sheet-{name}.png"
        with patch.object(stylegan2, "_FIT_DRAWS", options.fit_draws):
            draw(name, options).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {time.process_time():.0f} s so far", flush=True)


if __name__ == "__main__":
    main()
