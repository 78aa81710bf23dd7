"""What a StyleGAN2 is worth under differential privacy: trained by DP-SGD, and as the space of dp-k-average.

    python tests/bench/private_stylegan2.py [--cohort phantom|sites] [--epsilon E] [--rows A,B] [--steps N]
    python tests/bench/private_stylegan2.py --weights generator.safetensors

First form: the stage beside `spectral` (DP sampling) and `gan` at the same epsilon, from nothing and from a public
start of --steps steps, and that start as it is; one release a row, scored on val patients.

Second form: `dp-k-average` of one site's patients in the W space of a given generator of the three sites at 64 px,
whose own training no epsilon of this table covers. For each k, radius and epsilon: how much of a group's mean code
the noised one keeps (cosine of offsets from the centre), the correlation of its image with that of the mean without
noise, whether that group is the nearest of all by such a correlation with averages of real pixels, and the Frechet
distance to val patients beside that of draws of the prior. Codes are those of the closed form; nothing is refined.
"""

from __future__ import annotations

import argparse
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from cohorts import ROOT, load
from in_process import STAGES, Released, Row, build_plan, synthetic_set
from public_start import study, with_start
from space_models import Models, cohort_of, released
from torch import Tensor
from torch.nn import functional
from utility_scores import Scores, scores_of

from sfumato_common.accounting.calibration import gaussian_mu
from sfumato_common.files import write_json
from sfumato_common.generators import GENERATORS
from sfumato_common.generators.components import components_of
from sfumato_common.mechanisms.clipping import clip_rows
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.metrics.features import random_features
from sfumato_common.metrics.fidelity import frechet_distance
from sfumato_common.types import AnyArray, to_bytes, to_unit_range

DELTA = 1e-5
ROWS = ("spectral", "gan", "stylegan2 none", "stylegan2 textures")
FIGURES = ("auc", "linear auc", "FD random", "FD trained", "precision", "recall", "coverage")
RATES = {"phantom": 0.09, "sites": 0.04}
STAGE = {"rounds": 3, "local_steps": 20, "generator_steps": 40, "channel_base": 512, "channel_max": 32}
SETTINGS = [(10, 2.0), (10, 4.0), (10, 8.0), (50, 4.0), (200, 4.0)]  # k and radius
SITE, GROUPS, CHUNK = "guangzhou", 100, 50


def stage_rows(options: Namespace) -> dict[str, Scores]:
    """Scores of what each row releases, and of the public start as it is."""
    whole = load(options.cohort)
    cohort = replace(whole, parts={**whole.parts, "test": whole.parts["val"]})
    found: dict[str, Scores] = {}
    first: Released = {}
    print(f"| {options.cohort}, epsilon {options.epsilon:g} | {' | '.join(FIGURES)} |\n|{'---|' * (1 + len(FIGURES))}")
    for name in options.rows:
        kind, _, source = name.partition(" ")
        shares = {"spectral": 1.0} if kind == "spectral" else {"spectral": 0.6, kind: 0.4}
        STAGES["stylegan2"] |= {**STAGE, "sampling_rate": RATES[options.cohort]}
        plan = build_plan(cohort, Row(shares, kind), options.epsilon)
        plan, brought = with_start(plan, kind, source or "none", options.steps)
        if kind != "spectral" and not first:
            first = study(plan.model_copy(update={"stages": plan.stages[:1]}), cohort, {}, 0)
        models = study(plan, cohort, {**({} if kind == "spectral" else first), **brought}, 0)
        drawn = {name: models}
        if brought:
            weights = next(iter(brought.values()))
            drawn[f"{name}, untuned"] = {**models, kind: {**models["spectral"], **weights}}
        for row, arrays in drawn.items():
            images, labels = synthetic_set(plan, kind, arrays, options.images, 0)
            scores = scores_of(cohort, images, labels, 0, options.images)
            found[row] = {figure: scores[figure] for figure in FIGURES}
            print(f"| {row} | {' | '.join(f'{found[row][figure]:.3f}' for figure in FIGURES)} |", flush=True)
            np.savez_compressed(ROOT / "bench-out" / f"private-{row.replace(' ', '-')}.npz", images=images[:64])
    return found


def correlation(one: Tensor, other: Tensor) -> Tensor:
    """Of all images [N, P] with all others [M, P] -> [N, M]."""
    unit = [functional.normalize(part - part.mean(dim=1, keepdim=True), dim=1) for part in (one, other)]
    return unit[0] @ unit[1].T


class Averages:
    """One site's patients, an image each, in the space of a given generator."""

    def __init__(self, options: Namespace) -> None:
        cohort = cohort_of("sites-64", options.patients)
        plan, models = released(cohort, "stylegan2", Models(stylegan2=options.weights))
        self.space = GENERATORS["stylegan2"].latent(plan, models["stylegan2"])
        pixels, labels, owner = cohort.train[SITE].everything()
        one = np.unique(owner, return_index=True)[1]
        self.images, self.labels = torch.from_numpy(to_unit_range(pixels[one])), labels[one]
        self.components = components_of(plan, SITE, torch.from_numpy(self.labels))
        self.rng, self.draws = np.random.default_rng(0), TorchDraws(torch.Generator().manual_seed(0))
        self._val = random_features(cohort.parts["val"][SITE].everything()[0])
        self._offsets = (self.space.encode(self.images, self.components) - self.space.centre(self.components)).double()

    @property
    def length(self) -> float:
        """Median length of a patient's offset."""
        return float(self._offsets.norm(dim=1).median())

    def distance(self, made: Tensor) -> float:
        """Frechet distance to val patients of the site."""
        return frechet_distance(random_features(to_bytes(made.numpy())), self._val)

    def decoded(self, offsets: AnyArray, components: Tensor) -> Tensor:
        """Images of offsets from the centres, all with the same noise a row."""
        codes = self.space.centre(components) + torch.from_numpy(offsets).float()
        noise = self.space.draw_noise(components, TorchDraws(torch.Generator().manual_seed(1)))
        parts = torch.arange(len(codes)).split(CHUNK)
        return torch.cat([self.space.decode(codes[part], components[part], noise.at(part)) for part in parts])

    def prior(self, components: Tensor) -> AnyArray:
        """Offsets of drawn codes."""
        return (self.space.draw(components, self.draws)[0] - self.space.centre(components)).double().numpy()

    def rows(self, k: int, radius: float, epsilons: list[float]) -> list[Scores]:
        """Scores of noised means by epsilon, the first without noise."""
        classes = [self.rng.permutation(np.flatnonzero(self.labels == label)) for label in set(self.labels.tolist())]
        groups = np.concatenate([rows[: len(rows) // k * k].reshape(-1, k) for rows in classes])
        groups = self.rng.permutation(groups)[:GROUPS]
        given = self.components[groups[:, 0]]
        means = clip_rows(self._offsets.numpy()[groups.ravel()], radius, "l2").reshape(*groups.shape, -1).mean(axis=1)
        pixels = torch.stack([self.images[group].mean(dim=0).flatten() for group in groups])
        drawn, found = self.prior(given), []
        clean: Tensor | None = None
        for epsilon in (np.inf, *epsilons):
            noise = 2.0 * radius / k / gaussian_mu(epsilon, DELTA) if np.isfinite(epsilon) else 0.0
            noised = means + noise * self.rng.normal(size=means.shape)
            made = self.decoded(noised * rescaling(drawn, radius, k, noise), given).flatten(1)
            clean = made if clean is None else clean
            usual = clean.mean(dim=0)
            nearest = correlation(made - usual, pixels - pixels.mean(dim=0)).argmax(dim=1)
            row = {
                "k": k,
                "radius": radius,
                "epsilon": epsilon,
                "groups": len(groups),
                "code kept": float((noised * means).sum() / np.linalg.norm(noised) / np.linalg.norm(means)),
                "image kept": float(correlation(made - usual, clean - usual).diagonal().mean()),
                "own group nearest": float((nearest == torch.arange(len(groups))).double().mean()),
                "FD random": self.distance(made.view(-1, *self.images.shape[1:])),
            }
            found.append(row)
            print({name: round(value, 3) for name, value in row.items()}, flush=True)
        return found


def average_rows(options: Namespace) -> list[Scores]:
    """Scores of noised means of codes by k, radius and epsilon."""
    with torch.no_grad():
        bench = Averages(options)
        print("median length of an offset", round(bench.length, 1), flush=True)
        some = bench.components[bench.rng.permutation(len(bench.components))[:GROUPS]]
        print("FD of as many draws of the prior", round(bench.distance(bench.decoded(bench.prior(some), some)), 1))
        return [row for k, radius in SETTINGS for row in bench.rows(k, radius, options.epsilons)]


def rescaling(drawn: AnyArray, radius: float, k: int, noise: float) -> AnyArray:
    """What dp-k-average multiplies noised offsets by, so that they have the variance of the prior's codes."""
    inside = clip_rows(drawn, radius, "l2")
    return np.sqrt((drawn**2).mean(axis=0) / ((inside**2).mean(axis=0) / k + noise**2))


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", default="phantom", choices=sorted(RATES))
    parser.add_argument("--epsilon", type=float, default=10.0)
    parser.add_argument("--rows", type=lambda text: text.split(","), default=list(ROWS), help="of " + ",".join(ROWS))
    parser.add_argument("--steps", type=int, default=400, help="pretraining steps of a start")
    parser.add_argument("--images", type=int, default=1000, help="synthetic images a row")
    parser.add_argument("--weights", type=Path, help="a generator of three sites at 64 px: the second form")
    parser.add_argument("--patients", type=int, default=2400, help="the most of one site")
    parser.add_argument("--epsilons", type=float, nargs="+", default=[1000.0, 100.0, 10.0])
    options = parser.parse_args()
    torch.set_num_threads(1)
    out = ROOT / "bench-out"
    out.mkdir(exist_ok=True)
    if options.weights:
        rows = [{name: str(value) for name, value in row.items()} for row in average_rows(options)]
        write_json(out / "private_stylegan2-average.json", {"rows": rows})
    else:
        write_json(out / f"private_stylegan2-{options.cohort}.json", {"rows": stage_rows(options)})


if __name__ == "__main__":
    main()
