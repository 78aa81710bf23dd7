"""k-SALSA (Jeon et al. 2022): k-anonymous synthetic averaging with local style alignment.

The image of a group's mean code is moved, by Adam on the code, to its members' content (the cosine of embeddings, with
their reconstructions) and local style (see `style.py`, with their own images). Where a space has W+, codes are a code a
layer, as in the paper. An image is made from its group's k patients or more; the embedding that compares them is made
from the whole cohort, so that the level is 'syntactic': k-anonymity of one step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from sfumato_client.anonymise.candidates import CandidateSet
from sfumato_client.anonymise.chunks import on_all_cores, rows_of_chunk, rows_that_fit
from sfumato_client.anonymise.contract import Job
from sfumato_client.anonymise.given_net import net_of
from sfumato_client.anonymise.groups import Group, choose_groups, groups_of, require_k
from sfumato_client.anonymise.influence import (
    allowed_moves,
    averages_without,
    draw_restrained,
    noise_of,
    with_each_left_out,
)
from sfumato_client.anonymise.inversion import space_of
from sfumato_client.anonymise.patients import Patients, averages_of, patients_of
from sfumato_client.anonymise.self_supervised import ComparingNet
from sfumato_client.anonymise.style import patch_grams, style_loss
from sfumato_client.anonymise.tiles import MOST_ROWS, write_sheet
from sfumato_common.latent.space import LatentSpace, Noise
from sfumato_common.memory import TILE
from sfumato_common.pictures import Tile
from sfumato_common.rows import fill_up, row_bytes
from sfumato_common.study.release import KSalsa
from sfumato_common.types import ByteImages, to_bytes, to_unit_range

# Adam moves a coordinate as fast for a gradient of rounding errors as for a real one. Gradients here are about 0.1, and
# with torch's 1e-8 a group's image would hang on which others are in its batch; the losses reached are the same.
_EPSILON = 1e-2
_RAMP_DOWN, _RAMP_UP = 0.25, 0.05  # shares of all steps
Indices = npt.NDArray[np.int64]
_MOST_MEMBERS = 2 * MOST_ROWS - 2  # of a group on a sheet, so that it stays square


@dataclass(frozen=True, eq=False)
class Targets:
    """What G groups of at most M members are moved from and to.

    Mean codes [G, D] with their components [G] and noise, the mean of the members' unit embeddings [G, F], the members'
    Grams [G, M, 16, E] and weights [G, M], which sum to 1 over a group and are 0 where it has fewer than M.
    """

    codes: Tensor
    components: Tensor
    noise: Noise
    content: Tensor
    style: Tensor
    share: Tensor

    def at(self, rows: Tensor) -> Targets:
        """Targets of the groups `rows`."""
        return Targets(
            self.codes[rows],
            self.components[rows],
            self.noise.at(rows),
            self.content[rows],
            self.style[rows],
            self.share[rows],
        )


def k_salsa(job: Job[KSalsa]) -> CandidateSet:
    """One image a chosen group; raises DataError where there are too few groups (see `choose_groups`).

    Every image is made k times more, each time without one of its patients, and is held to what an average would move
    by (`influence.py`); ReleaseRefused where it cannot be.
    """
    item, plan = job.item, job.plan
    space, patients = space_of(job), patients_of(job)
    groups = choose_groups(job, groups_of(job))
    require_k(min(len(group.members) for group in groups), item.k)
    net = net_of(job).to(space.device)
    labels = np.array([group.label for group in groups], dtype=np.int64)
    components = averages_of(patients, [torch.from_numpy(group.members) for group in groups]).components
    noise = noise_of(space, components, job.streams.published)
    images, centroids = [], []
    made = _align_variants(space, net, patients, [group.members for group in groups], noise, item)
    for number, (group, (plain, aligned)) in enumerate(zip(groups, made, strict=True)):
        own = noise.at(torch.tensor([number]))
        component, allowed = components[number : number + 1], allowed_moves(job.cohort, group.members)
        averages = averages_without(job.cohort, group.members)
        images.append(draw_restrained(space, plain, aligned, averages, component, own, allowed, plan.image.bits))
        centroids.append(_pixels(space, plain[:1], component, own, plan.image.bits))
    found = np.stack(images)
    if job.steward_folder is not None:
        write_sheet(job, _rows(space, patients, groups, np.concatenate(centroids), found, plan.image.bits))
    least = min(len(group.members) for group in groups)
    return CandidateSet(item.method, item.model, plan.guarantee_level(item), found, labels, patients=least)


def _align_variants(
    space: LatentSpace, net: ComparingNet, patients: Patients, groups: Sequence[Indices], noise: Noise, item: KSalsa
) -> list[tuple[Tensor, Tensor]]:
    """For each group, mean codes [V, D] of it whole and without each member, and what `align` makes of them
    [V, 1 + L, D]; `noise` is one image's a group.
    """
    variants = [with_each_left_out(members) for members in groups]
    of = torch.arange(len(groups)).repeat_interleave(torch.tensor([len(own) for own in variants]))
    found = align_groups(space, net, patients, [members for own in variants for members in own], noise, of, item)
    sizes = [len(own) for own in variants]
    return list(zip(*(torch.split(part, sizes) for part in found), strict=True))


def align_groups(
    space: LatentSpace,
    net: ComparingNet,
    patients: Patients,
    groups: Sequence[Tensor],
    noise: Noise,
    of: Tensor,
    item: KSalsa,
) -> tuple[Tensor, Tensor]:
    """Mean codes [G, D] of groups, rows of `patients`, and what `align` makes of them [G, 1 + L, D].

    Chunks are as large as memory allows, on all cores. Group g has the noise `of[g]`. Raises what `averages_of` raises.
    """
    device = space.device
    largest = max(groups, key=len)

    def bytes_of_row(first: Tensor) -> int:
        tile = targets_of(space, net, patients, [largest], noise.at(first)).at(torch.zeros(TILE, dtype=torch.int64))
        return row_bytes(lambda w: losses(space, net, tile, w), tile.codes)

    (counted,) = on_all_cores(bytes_of_row, [of[:1]], device)
    size = rows_of_chunk(len(groups), counted, device)

    def align_some(rows: Tensor) -> tuple[Tensor, Tensor]:
        whole = fill_up(rows)
        targets = targets_of(space, net, patients, [groups[row] for row in whole.tolist()], noise.at(of[whole]))
        return targets.codes[: len(rows)], align(space, net, targets, item)[: len(rows)]

    made = on_all_cores(align_some, torch.split(torch.arange(len(groups)), size), device)
    codes, aligned = zip(*made, strict=True)
    return torch.cat(codes), torch.cat(aligned)


def targets_of(
    space: LatentSpace,
    net: ComparingNet,
    patients: Patients,
    members: Sequence[Tensor],
    noise: Noise,
) -> Targets:
    """Targets of groups with `members`, rows of `patients`. Raises what `averages_of` raises."""
    means = averages_of(patients, members)
    device, groups, longest = space.device, len(members), max(len(group) for group in members)
    # padded with a group's first member, whose weight there is 0
    rows = torch.stack([torch.cat([group, group[:1].expand(longest - len(group))]) for group in members])
    sizes = torch.tensor([len(group) for group in members])
    share = ((torch.arange(longest) < sizes[:, None]) / sizes[:, None]).to(device)
    flat = rows.flatten()
    codes = patients.codes[flat].to(device)
    with torch.no_grad():
        units, parts = [], []
        for some in torch.split(torch.arange(len(flat)), rows_that_fit(space.image_bytes, device)):
            # the group's noise in its members' reconstructions too: the content term compares codes and nothing else
            rebuilt = space.decode(codes[some], patients.components[flat[some]].to(device), noise.at(some // longest))
            units.append(functional.normalize(net(rebuilt), dim=1))
            originals = torch.from_numpy(to_unit_range(patients.images[flat[some].numpy()])).to(device)
            parts.append(patch_grams(net.features(originals)[0]))
        unit, grams = torch.cat(units).view(groups, longest, -1), torch.cat(parts)
    return Targets(
        means.codes.to(device),
        means.components.to(device),
        noise,
        (unit * share[:, :, None]).sum(dim=1),
        grams.view(groups, longest, *grams.shape[1:]),
        share,
    )


def losses(space: LatentSpace, net: ComparingNet, targets: Targets, w: Tensor) -> tuple[Tensor, Tensor]:
    """Content and style losses [G] of codes [G, D] or [G, 1 + L, D]; each image's are its own group's alone."""
    local, embedded = net.features(space.decode(w, targets.components, targets.noise))
    content = 1.0 - (functional.normalize(embedded, dim=1) * targets.content).sum(dim=1)
    return content, style_loss(patch_grams(local), targets.style, targets.share)


def ramp(step: int, steps: int) -> float:
    """What a step's learning rate is of the item's: up over the first twentieth, down over the last quarter."""
    t = step / steps
    return 0.5 * (1.0 - math.cos(math.pi * min(1.0, (1.0 - t) / _RAMP_DOWN))) * min(1.0, t / _RAMP_UP)


def align(space: LatentSpace, net: ComparingNet, targets: Targets, item: KSalsa) -> Tensor:
    """Codes [G, 1 + L, D] after the item's steps of Adam from the mean codes.

    Losses are summed over groups and Adam is elementwise, so that a group's code is the same alone or among others, up
    to rounding; where the best patch changes, that may grow to a few grey levels over a hundred steps.
    """
    w = targets.codes[:, None].repeat(1, space.layers, 1).requires_grad_()
    optimiser = torch.optim.Adam([w], lr=item.learning_rate, eps=_EPSILON)
    for step in range(item.steps):
        for group in optimiser.param_groups:
            group["lr"] = item.learning_rate * ramp(step, item.steps)
        content, style = losses(space, net, targets, w)
        (w.grad,) = torch.autograd.grad((item.content_weight * content + item.style_weight * style).sum(), [w])
        optimiser.step()
    return w.detach()


def _pixels(space: LatentSpace, w: Tensor, components: Tensor, noise: Noise, bits: int) -> ByteImages:
    with torch.no_grad():
        return to_bytes(space.decode(w, components.to(w.device), noise).cpu().numpy(), bits)


def _rows(
    space: LatentSpace,
    patients: Patients,
    groups: Sequence[Group],
    centroids: ByteImages,
    found: ByteImages,
    bits: int,
) -> list[list[Tile]]:
    """Two rows a group: members' images, centroid and k-SALSA; below, members' reconstructions."""
    device = space.device
    shown = list(zip(groups, centroids, found, strict=True))[:MOST_ROWS]
    columns = min(max(len(group.members) for group, _, _ in shown), _MOST_MEMBERS)
    rows: list[list[Tile]] = []
    for group, centroid, image in shown:
        index = torch.from_numpy(group.members[:columns])
        with torch.no_grad():
            rebuilt = space.decode(patients.codes[index].to(device), patients.components[index].to(device))
        gap: list[Tile] = [None] * (columns - len(index))
        rows.append([*patients.images[index.numpy()], *gap, centroid, image])
        rows.append(list(to_bytes(rebuilt.cpu().numpy(), bits)))
    return rows
