"""k-SALSA and walks as functions of a latent space: codes, groups and networks of one's own in, images out.

The methods are those of a plan's release, and each one's own file says how it works. Nothing here is charged to a
ledger, judged by a gate, or made again without each of its patients (`influence.py`). What comes out is 'syntactic'
where groups are disjoint and have at least k patients, and 'heuristic' from `plan_walk`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sfumato_client.anonymise.chunks import rows_that_fit
from sfumato_client.anonymise.groups import form_groups
from sfumato_client.anonymise.identities import Identities
from sfumato_client.anonymise.influence import noise_of
from sfumato_client.anonymise.k_salsa import align_groups
from sfumato_client.anonymise.linear_walk import Walks
from sfumato_client.anonymise.patients import Patients, averages_of
from sfumato_client.anonymise.plan_walk import bend_on_all_cores
from sfumato_client.anonymise.self_supervised import ComparingNet, train
from sfumato_client.dataset import Cohort
from sfumato_common.latent.space import LatentSpace, Noise
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.study.release import KSalsa, KSame, PlanWalk
from sfumato_common.types import ByteImages

Indices = npt.NDArray[np.int64]


def group_patients(codes: Tensor, labels: Indices, k: int = 5) -> list[Indices]:
    """Disjoint groups of at least `k` patients of one label, nearest codes together (k-SALSA: Jeon et al. 2022).

    `codes` [P, D], points in any space, and `labels` [P] are one a patient. In whitened codes all patients are about
    equally far; blurred pixels or an embedding give groups that are more alike. Patients beyond a label's last whole
    group join its nearest; a label with fewer than k patients gives none. Raises ValueError for a k below 2.
    """
    return form_groups(codes.double().cpu().numpy(), labels, KSame(method="k-same", images=1, k=k))


def k_salsa(
    space: LatentSpace,
    images: ByteImages,
    codes: Tensor,
    components: Tensor,
    groups: Sequence[Indices],
    rng: torch.Generator,
    *,
    net: ComparingNet | None = None,
    embedding_steps: int = 200,
    steps: int = 100,
    learning_rate: float = 0.1,
    content_weight: float = 100.0,
    style_weight: float = 1e-6,
) -> Tensor:
    """One image a group [G, C, S, S] by local style alignment (k-SALSA: Jeon et al. 2022), in [-1, 1].

    One image [P, S, S(, 3)], code [P, D] and component [P] a patient; `groups` hold rows of them. A group's image is of
    the component that its members' codes were made under. Without a `net`, one is fitted to the images for
    `embedding_steps`. Raises ValueError for terms that no plan may have, a group of one patient among them, and
    ReleaseRefused where a group's codes are of several components: the image would not be between its members.
    """
    asked = {"steps": steps, "learning_rate": learning_rate, "embedding_steps": embedding_steps}
    weights = {"content_weight": content_weight, "style_weight": style_weight}
    least = min(len(group) for group in groups)
    item = KSalsa.model_validate({"method": "k-salsa", "images": len(groups), "k": least, **asked, **weights})
    everybody = np.arange(len(images))
    if net is None:
        net = train(Cohort(images, np.zeros_like(everybody), everybody), embedding_steps, rng)
    members = [torch.from_numpy(group) for group in groups]
    patients = Patients(codes, np.zeros_like(everybody), components, images)
    noise = noise_of(space, averages_of(patients, members).components, TorchDraws(rng))
    device = space.device
    _, found = align_groups(space, net.to(device), patients, members, noise, torch.arange(len(groups)), item)
    parts = []
    for rows in torch.split(torch.arange(len(groups)), rows_that_fit(space.image_bytes, device)):
        own = components[[int(groups[row][0]) for row in rows.tolist()]].to(device)
        with torch.no_grad():
            parts.append(space.decode(found[rows], own, noise.at(rows)))
    return torch.cat(parts)


def linear_walk(space: LatentSpace, ends: Tensor, components: Tensor, points: int, rng: torch.Generator) -> Tensor:
    """Images [W, T, C, S, S] in [-1, 1] at `points` T even steps between `ends` [W, 2, D], which are left out.

    The baseline of PLAN (Pennisi et al. 2023). `components` [W] are the walks'.
    """
    walks = _walks(ends, components, torch.zeros(len(ends), dtype=torch.int64), points)
    return _render(space, walks, walks.linear(), space.draw_noise(walks.components_of_points(), TorchDraws(rng)))


def plan_walk(
    space: LatentSpace,
    ends: Tensor,
    components: Tensor,
    labels: Tensor,
    who: nn.Module,
    what: nn.Module,
    rng: torch.Generator,
    *,
    points: int = 6,
    steps: int = 500,
    identity_weight: float = 0.1,
    class_weight: float = 1.0,
    elastic: str = "relative",
) -> Tensor:
    """Images [W, T, C, S, S] in [-1, 1] of walks bent away from identities (PLAN: Pennisi et al. 2023, section 2).

    `ends` [W, 2, D] stay; `components` and `labels` [W] are the walks'. Of images [N, C, S, S], `who` gives logits over
    the patients to keep away from, `what` over the labels. By `elastic` strides count in the walk's own length, or in
    the space's unit (`absolute`, as published). Raises ValueError for terms that no plan may have.
    """
    asked = {"points": points, "steps": steps, "identity_weight": identity_weight, "class_weight": class_weight}
    item = PlanWalk.model_validate({"method": "plan-walk", "images": len(ends) * points, "elastic": elastic, **asked})
    walks, device = _walks(ends, components, labels, points), space.device
    noise = space.draw_noise(walks.components_of_points().to(device), TorchDraws(rng))
    return _render(space, walks, bend_on_all_cores(space, walks, noise, Identities(who, what), item), noise)


def _walks(ends: Tensor, components: Tensor, labels: Tensor, points: int) -> Walks:
    positions = (torch.arange(1, points + 1) / (points + 1)).expand(len(ends), points)
    return Walks(ends, positions, torch.ones_like(positions, dtype=torch.bool), labels, components, patients=0)


def _render(space: LatentSpace, walks: Walks, points: Tensor, noise: Noise) -> Tensor:
    with torch.no_grad():
        images = space.decode(points.flatten(0, 1), walks.components_of_points(), noise)
    return images.view(*points.shape[:2], *images.shape[1:])
