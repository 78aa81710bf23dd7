"""What codes of real images keep in a StyleGAN2's space, by each way to find them, and what averages of them are worth.

    python tests/bench/inversion.py FILE [--groups 20] [--encoder-steps 1000] [--seconds 120]

FILE is a generator of three sites at 64 px, as `make bench NAME=stylegan2` leaves it; images are val patients', one
each, in groups of five alike at one site with one label, `--groups` in all. In W and in W+ (one code a layer): the
affine map, the encoder, and 20 and 100 steps of Adam from each. Figures of reconstructions: root mean square error of a
range of 2, correlation, correlation of what is finer than 8 pixels, share of gradient energy kept. Of images of mean
codes, with the generator's noise: gradient energy of their members', and how often a member has its own group among
the five images most like it. It works where an accelerator is and where none is, and asks for no other way once its
seconds are over. A sheet and inversion.json lie in bench-out, or where `--out` says.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from cohorts import ROOT, BenchCohort, load
from methods_models import as_released, terms_of
from PIL import Image
from safetensors.numpy import load_file
from support.plans import dp_sgd
from torch import Tensor
from torch.nn import functional

from sfumato_client.anonymise.groups import form_groups
from sfumato_client.audit.attacks.membership import group_membership
from sfumato_common.files import write_json
from sfumato_common.generators.components import components_of
from sfumato_common.generators.device import training_device
from sfumato_common.generators.stylegan2.inversion import Inversion
from sfumato_common.generators.stylegan2.space import StyleSpace, space_of
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.release import KSame
from sfumato_common.types import to_bytes, to_unit_range

K, SEED, SHOWN = 5, 3, 8
REFINEMENTS = (20, 100)


def plan_of(cohort: BenchCohort, codes: str, terms: dict[str, int]) -> Plan:
    """A plan with the generator's stage; nothing of its privacy is used."""
    noise = {"clip_radius": 1.0, "noise_multiplier": 1.0}
    stage = {"kind": "stylegan2", "codes": codes, **terms}
    value = {
        "study": "codes",
        "image": {"size": cohort.size, "channels": cohort.channels},
        "labels": list(cohort.labels),
        "sites": {site: {"nominal_patients": count} for site, count in cohort.nominal.items()},
        "privacy": {"epsilon": 1000.0, "delta": 1e-5},
        "stages": [{"kind": "spectral", "bandwidth": 16, "by_site": True, **noise}, {**stage, **dp_sgd()}],
        "release": [{"model": "stylegan2", "images": 1}],
        "federation": {"quorum": len(cohort.nominal)},
    }
    return parse(value, Plan, "codes")


def members_of(cohort: BenchCohort, plan: Plan, most: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """Images of val patients [N, C, S, S], their components [N] and the number [N] of the group that each is in."""
    item, images, components, groups = KSame(method="k-same", images=1, k=K), [], [], []
    share = 1.0 / len(cohort.parts["val"])
    for site, part in cohort.parts["val"].items():
        pixels, labels, index = part.everything()
        first = np.unique(index, return_index=True)[1]
        x = torch.from_numpy(to_unit_range(pixels[first]))
        points = functional.adaptive_avg_pool2d(x, 16).flatten(1).double().numpy()
        own = [group for group in form_groups(points, labels[first], item) if len(group) == K]
        for number in np.unique(np.linspace(0, len(own) - 1, max(1, round(share * most))).astype(int)) if own else ():
            images.append(x[own[number]])
            components.append(components_of(plan, site, torch.from_numpy(labels[first][own[number]])))
            groups += [len(images) - 1] * K
    return torch.cat(images), torch.cat(components), np.array(groups)


def fine(x: Tensor) -> Tensor:
    """What 8 pixels do not show."""
    small = functional.avg_pool2d(x, 8)
    return x - functional.interpolate(small, scale_factor=8, mode="bilinear", align_corners=False)


def correlation(ones: Tensor, others: Tensor) -> float:
    """Mean over images."""
    rows = [part.flatten(1) - part.flatten(1).mean(dim=1, keepdim=True) for part in (ones, others)]
    return float(functional.cosine_similarity(*rows).mean())


def energy(x: Tensor) -> float:
    """Mean square of differences between neighbours."""
    return float(x.diff(dim=2).square().mean() + x.diff(dim=3).square().mean())


def figures(space: StyleSpace, codes: Tensor, x: Tensor, y: Tensor, groups: np.ndarray) -> tuple[dict, Tensor, Tensor]:
    """The row of `codes`, with reconstructions and the images of mean codes."""
    firsts = np.unique(groups, return_index=True)[1]
    means = torch.stack([codes[torch.from_numpy(groups == group)].mean(dim=0) for group in np.unique(groups)])
    noise = space.draw_noise(y[firsts], TorchDraws(torch.Generator().manual_seed(SEED)))
    with torch.no_grad():
        seen, centroids = space.decode(codes, y).cpu(), space.decode(means, y[firsts], noise).cpu()
    real = x.cpu()
    linked = group_membership(to_bytes(real.numpy()), groups, to_bytes(centroids.numpy()))
    row = {
        "RMSE": float((seen - real).square().mean(dim=(1, 2, 3)).sqrt().mean()),
        "correlation": correlation(seen, real),
        "fine": correlation(fine(seen), fine(real)),
        "energy": energy(seen) / energy(real),
        "centroids' energy": energy(centroids) / energy(real),
        "own group in top 5": linked.share,
    }
    return row, seen, centroids


def ways(space: StyleSpace, options: argparse.Namespace) -> dict[str, Inversion]:
    """The inversions by name; one encoder serves all that have one."""
    shares = torch.ones(len(space.affine.centre), dtype=torch.float64)
    plain = space.encoding(shares, SEED, 0, 0)
    began = time.perf_counter()
    learned = space.encoding(shares, SEED, options.encoder_steps, 0)
    print(f"encoder: {time.perf_counter() - began:.0f} s for {options.encoder_steps} steps", flush=True)
    found = {"affine": plain, "encoder": learned}
    for steps in REFINEMENTS[: options.refinements]:
        for name, start in (("affine", plain), ("encoder", learned)):
            found[f"{name}, Adam {steps}"] = Inversion(space, start.comparison, start.encoder, steps)
    return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generator", type=Path)
    parser.add_argument("--groups", type=int, default=20)
    parser.add_argument("--encoder-steps", type=int, default=1000)
    parser.add_argument("--refinements", type=int, default=2, help="how many of 20 and 100 steps of Adam")
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--out", type=Path, default=ROOT / "bench-out" / "inversion")
    options = parser.parse_args()
    began, device, cohort = time.perf_counter(), training_device(), load("sites")
    torch.set_num_threads(1)
    published = load_file(options.generator)
    weights = as_released(published, len(cohort.labels), cohort.nominal)
    rows, sheet, space = {}, [], None
    options.out.mkdir(parents=True, exist_ok=True)
    for codes in ("w", "w+"):
        plan = plan_of(cohort, codes, terms_of(published, cohort.size))
        # the map from images to W is the same for both
        space = space_of(plan, weights).to(device) if space is None else StyleSpace(plan, space.generator, space.affine)
        x, y, groups = members_of(cohort, plan, options.groups)
        x, y = x.to(device), y.to(device)
        if not rows:
            averages = torch.stack([x[torch.from_numpy(groups == one)].mean(dim=0) for one in np.unique(groups)]).cpu()
            sheet += [x[::K].cpu(), averages]
            linked = group_membership(to_bytes(x.cpu().numpy()), groups, to_bytes(averages.numpy())).share
            print(f"{len(x)} images; average of pixels: energy {energy(averages) / energy(x.cpu()):.3f}, {linked:.3f}")
        for name, inversion in ways(space, options).items():
            if time.perf_counter() - began > options.seconds:
                print(f"no time for {codes}, {name}", flush=True)
                continue
            start = time.perf_counter()
            found = torch.cat([inversion(*part).cpu() for part in zip(x.split(50), y.split(50), strict=True)])
            spent = time.perf_counter() - start
            row, seen, centroids = figures(space, found.to(device), x, y, groups)
            rows[f"{codes}, {name}"] = {**row, "images a second": len(x) / spent}
            if len(rows) == 1:
                print("| codes | " + " | ".join(rows[f"{codes}, {name}"]) + " |\n|---" + "|---" * 7 + "|")
            print(f"| {codes}, {name} | " + " | ".join(f"{v:.3f}" for v in rows[f"{codes}, {name}"].values()) + " |")
            sheet += [seen[::K], centroids]
            write_json(options.out / "inversion.json", {"device": str(device), "rows": rows})
            strips = [to_bytes(part[:: max(1, len(part) // SHOWN)][:SHOWN].numpy()) for part in sheet]
            tiles = np.concatenate([np.concatenate(list(strip), axis=1) for strip in strips])
            Image.fromarray(tiles).save(options.out / "inversion.png", optimize=True)


if __name__ == "__main__":
    main()
