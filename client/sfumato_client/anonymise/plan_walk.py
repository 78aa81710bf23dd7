"""PLAN, the privacy-preserving latent walk (Pennisi et al., MICCAI 2023, section 2): walks bent away from identities.

A walk starts straight, its ends stay, and its T - 2 interior points are moved together by Adam on

    sum_t ||w_t+1 - w_t||^2 + identity_weight * sum_chunks mean KL(Uniform_N || softmax phi_id(G(w_t)))
                            + class_weight * sum_chunks mean CE(phi_class(G(w_t)), y).

The first term has the square of the space's unit, the others have none: where codes have many numbers of variance 1 it
outweighs them, and nothing bends. `elastic: relative` divides it by the squared distance of the walk's ends, one rule
for every space; a straight walk then has 1 / (T - 1) whatever its length. `elastic: absolute` is the paper's term.

The published code takes the T images of a walk (ends counted) four at a time and adds the means of the chunks: its
weights grow with the number of chunks. Here the two terms are ceil(T / 4) times the mean over the walk's T images,
whatever is computed at once. That is the published sum where 4 divides T; elsewhere the published last chunk is short
and its images weigh more, while here all weigh the same and the sum of weights stays. The ends have no gradient and
are left out of the computation, not of the mean.

Adam is elementwise and no layer mixes images, so many walks are optimised in one batch, each as it would be alone.
phi_id has seen every training patient, and a gradient can find images that only look anonymous to phi_id: guarantee
level 'heuristic', and the gate asks a verifier that no walk has seen.

An image is held against what it would be without each of its patients, as with every method on groups (`influence.py`),
but with the walk bent as it is: to bend it anew 2k times an image would cost as much, and the classifiers, which the
bend follows, have seen everybody in any case.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sfumato_client.anonymise.candidates import CandidateSet
from sfumato_client.anonymise.chunks import cores, on_all_cores, rows_that_fit
from sfumato_client.anonymise.contract import Job
from sfumato_client.anonymise.identities import Identities, anonymity, identities_of
from sfumato_client.anonymise.influence import noise_of
from sfumato_client.anonymise.inversion import space_of
from sfumato_client.anonymise.linear_walk import Walks, candidates_of, restrained_points, walks_of
from sfumato_client.anonymise.tiles import MOST_ROWS, write_sheet
from sfumato_common.generators.device import training_device
from sfumato_common.latent.space import LatentSpace, Noise
from sfumato_common.memory import TILE
from sfumato_common.pictures import Tile
from sfumato_common.rows import fill_up, row_bytes
from sfumato_common.study.release import PlanWalk
from sfumato_common.types import ByteImages, to_bytes

_PUBLISHED_CHUNK = 4
_LEARNING_RATE, _BETAS = 0.1, (0.9, 0.999)
# Adam takes rounding for a gradient where there is no other; gradients here are about 1e-3, their rounding 1e-7. With
# 1e-6 walks computed 64 and 7 images at once came 40 times as far apart, and moved no further.
_EPSILON = 1e-5


def plan_walk(job: Job[PlanWalk]) -> CandidateSet:
    """`images` images on bent walks. Raises what `linear_walk` raises."""
    item, device = job.item, training_device()
    space, walks = space_of(job), walks_of(job)
    identities = identities_of(job, item.classifier_steps)
    images: list[ByteImages] = []
    together, _ = _walks_at_once(space, walks, identities)
    for rows in torch.split(torch.arange(len(walks.ends)), together * cores(device)):
        some = walks.some(rows)
        # image by image: what is drawn must not depend on how many walks memory holds
        noise = noise_of(space, some.components_of_points(), job.streams.published)
        bent_points = bend_on_all_cores(space, some, noise, identities, item)
        if job.steward_folder is not None and not images:
            write_sheet(job, _rows(space, some, bent_points, noise, job.plan.image.bits))
        shown = noise.at(some.released_points())
        if len(shown):
            images.append(restrained_points(job, space, some, bent_points, shown))
    return candidates_of(job, walks, np.concatenate(images))


def bend_on_all_cores(space: LatentSpace, walks: Walks, noise: Noise, identities: Identities, item: PlanWalk) -> Tensor:
    """What `bend_walks` gives, in chunks as large as memory allows and on all cores; a walk's bits hang on neither."""
    size, at_once = _walks_at_once(space, walks, identities)

    def bend_some(rows: Tensor) -> Tensor:
        points = torch.arange(len(noise)).view(len(walks.ends), -1)[rows].flatten()
        return bend_walks(space, walks.some(rows), noise.at(points), identities, item, at_once)

    parts = torch.split(torch.arange(len(walks.ends)), size)
    return torch.cat(on_all_cores(bend_some, parts, space.device))


def _walks_at_once(space: LatentSpace, walks: Walks, identities: Identities) -> tuple[int, int]:
    """Walks of a chunk, and images at once, of which memory may not hold those of one walk."""
    device = space.device

    def logits(w: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        images = space.decode(w, y)
        return identities.who(images), identities.what(images)

    def bytes_of_image(code: Tensor) -> int:
        return row_bytes(logits, code, walks.components[:1].to(device))

    (counted,) = on_all_cores(bytes_of_image, [walks.ends[:1, 0].to(device)], device)
    at_once = rows_that_fit(counted, device)
    part = -(-len(walks.ends) // cores(device))
    return max(1, min(part, at_once // walks.positions.shape[1])), at_once


def bend_walks(
    space: LatentSpace, walks: Walks, noise: Noise, identities: Identities, item: PlanWalk, at_once: int
) -> Tensor:
    """The points [W, T, D] of the walks after `item.steps` steps of Adam, from straight ones, where the space is.

    `at_once` images are in memory at a time, which changes nothing but that; where they are whole tiles the last ones
    are filled up to one, and not even last bits change. `noise` is one image's a point.
    """
    device = space.device
    ends, points = walks.ends.to(device), walks.linear().to(device)
    components = walks.components_of_points().to(device)
    labels = walks.labels.repeat_interleave(points.shape[1]).to(device)
    chunks = []
    for rows in torch.split(torch.arange(len(labels), device=device), at_once):
        whole = rows if at_once % TILE else fill_up(rows)
        chunks.append((rows, whole, noise.at(whole)))
    optimiser = torch.optim.Adam([points], lr=_LEARNING_RATE, betas=_BETAS, eps=_EPSILON)
    weight = weight_of_image(points.shape[1])
    unit = elastic_unit(ends) if item.elastic == "relative" else torch.ones_like(ends[:, :1, :1])
    for _ in range(item.steps):
        gradient = torch.empty_like(points).flatten(0, 1)
        for rows, whole, own in chunks:
            w = points.flatten(0, 1)[whole].requires_grad_()
            images = space.decode(w, components[whole], own)
            identity = item.identity_weight * anonymity(identities.who(images))
            known = item.class_weight * functional.cross_entropy(
                identities.what(images), labels[whole], reduction="none"
            )
            gradient[rows] = torch.autograd.grad(weight * (identity + known).sum(), w)[0][: len(rows)]
        points.grad = gradient.view_as(points) + elastic_gradient(ends, points) / unit
        optimiser.step()
    return points


def weight_of_image(interior: int) -> float:
    """What one image's KL and cross-entropy count: ceil(T / 4) / T, T being the interior points and both ends."""
    images = interior + 2
    return math.ceil(images / _PUBLISHED_CHUNK) / images


def elastic_gradient(ends: Tensor, points: Tensor) -> Tensor:
    """Gradient [W, T, D] of sum_t ||w_t+1 - w_t||^2 in the interior points, the ends [W, 2, D] staying."""
    path = torch.cat([ends[:, :1], points, ends[:, 1:]], dim=1)
    strides = path[:, 1:] - path[:, :-1]
    return 2.0 * (strides[:, :-1] - strides[:, 1:])


def elastic_unit(ends: Tensor) -> Tensor:
    """What the elastic term of each walk is divided by [W, 1, 1]: the squared distance of its ends [W, 2, D].

    Ends that are the same code have no length, and a walk that starts there has no gradient to divide.
    """
    squared = (ends[:, 1] - ends[:, 0]).square().sum(dim=1)
    return torch.where(squared > 0.0, squared, torch.ones_like(squared))[:, None, None]


def _rows(space: LatentSpace, walks: Walks, points: Tensor, noise: Noise, bits: int) -> list[list[Tile]]:
    """Two rows a walk, between the images of its ends, which are k-averages: straight, and below it bent."""
    device, count = space.device, points.shape[1]
    straight = walks.linear().to(device)
    rows: list[list[Tile]] = []
    for walk in range(min(len(points), MOST_ROWS)):
        first, last = walks.ends[walk, :1].to(device), walks.ends[walk, 1:].to(device)
        places = torch.arange(walk * count, (walk + 1) * count, device=device)
        places = torch.cat([places[:1], places, places[-1:]])  # an end is drawn with its neighbour's noise
        component = walks.components[walk].to(device).expand(count + 2)
        for path in (straight[walk], points[walk]):
            with torch.no_grad():
                seen = space.decode(torch.cat([first, path, last]), component, noise.at(places))
            rows.append(list(to_bytes(seen.cpu().numpy(), bits)))
    return rows
