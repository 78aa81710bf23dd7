"""Differentially private k-averages: clipped codes, random groups within public labels, Gaussian noise on the means.

The formal variant of k-SALSA (beyond Jeon et al. 2022); `accounting.events.KAverageGaussian` proves what it costs. Its
premises are kept here. How many groups a label has follows from released shares. Each patient takes one place at most,
drawn at random, and a place that nobody takes, ANY place with the same chance, holds the zero offset: so the number of
patients never shows, and the cohort without a patient differs in one place. A patient's code is computed from that
patient alone: in a batch with others, a patient who leaves it could change the last bits of all.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sfumato_client.anonymise.candidates import CandidateSet
from sfumato_client.anonymise.chunks import on_all_cores
from sfumato_client.anonymise.contract import Job, require_private
from sfumato_client.anonymise.groups import apportion, label_shares
from sfumato_client.anonymise.inversion import Inverter, code_of_patient, drawn_images, inverter_of, patient_labels
from sfumato_common.generators.components import components_of
from sfumato_common.mechanisms.clipping import clip_rows
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.mechanisms.streams import SecretStream
from sfumato_common.study.release import DpKAverage

Float64 = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
_PRIOR_DRAWS = 1024  # a component: a variance is known to 4 %


def dp_k_average(job: Job[DpKAverage]) -> CandidateSet:
    """Images of noised mean codes, at their labels' released shares; every cohort gives as many, also an empty one."""
    item, plan = job.item, job.plan
    require_private(plan)
    counts = apportion(item.images, label_shares(job))
    places = places_of(patient_labels(job.cohort, len(plan.labels)), counts, item.k, job.streams.secret)
    labels = np.repeat(np.arange(len(counts)), counts)
    components = components_of(plan, job.site, torch.from_numpy(labels))
    inverter = inverter_of(job)
    centres = inverter.space.centre(components.to(inverter.device)).cpu()
    members = offsets_of(job, inverter, places, components, centres)
    noised = job.recorder.k_average(members, item.radius, item.noise_multiplier)
    scale = rescaling(job, inverter, components, centres)
    codes = centres + torch.from_numpy(noised * scale).float()
    images = drawn_images(job, inverter.space, codes, components)
    return CandidateSet(
        item.method, item.model, plan.guarantee_level(item), images, labels, item.k, job.recorder.executed
    )


def places_of(labels: Indices, counts: Indices, k: int, secret: SecretStream) -> Indices:
    """Patients [G, k] in groups, labels one after another with counts[label] groups each; -1: nobody.

    A label's places are filled by a random order of its patients and, where these are fewer, of empty ones. The draw
    with a patient more is then the draw without in which that patient replaced what was in one place, or took none.
    """
    groups = []
    for label, count in enumerate(counts.tolist()):
        own = np.flatnonzero(labels == label)
        places = count * k
        entries = np.concatenate([own, np.full(max(0, places - len(own)), -1, dtype=np.int64)])
        groups.append(entries[secret.permutation(len(entries))[:places]].reshape(count, k))
    return np.concatenate(groups)


def offsets_of(
    job: Job[DpKAverage], inverter: Inverter, places: Indices, components: Tensor, centres: Tensor
) -> Float64:
    """Codes less their component's mean, [G, k, D], zero where nobody is; not yet clipped, which the recorder does."""
    offsets = np.zeros((*places.shape, centres.shape[1]))

    def code_at(where: list[int]) -> Tensor:
        group, place = where
        return code_of_patient(inverter, job.cohort, int(places[group, place]), components[group])

    taken = np.argwhere(places >= 0).tolist()
    for (group, place), code in zip(taken, on_all_cores(code_at, taken, inverter.device), strict=True):
        offsets[group, place] = (code - centres[group]).double().numpy()
    return offsets


def rescaling(job: Job[DpKAverage], inverter: Inverter, components: Tensor, centres: Tensor) -> Float64:
    """Factors [G, D] on the noised offsets that give them the variance of the prior's codes, coordinate by coordinate.

    A mean of k codes lies nearer to the centre than codes do, and its noise may carry it farther. If patients were
    draws of the prior, with variance v about the centre and u once clipped, a noised mean would have
    u / k + (noise_multiplier 2 radius / k)^2, and c^2 (u / k + ...) = v. All of it is public: draws of the space and
    the plan's numbers. c is at most sqrt(k v / u), which is sqrt(k) where nothing is clipped.
    """
    item, space = job.item, inverter.space
    noise = item.noise_multiplier * 2.0 * item.radius / item.k
    found = np.empty(centres.shape)
    for component in set(components.tolist()):
        draws = TorchDraws(torch.Generator().manual_seed(int(job.plan.study_digest[:12], 16) + component))
        same = torch.full((_PRIOR_DRAWS,), component, device=inverter.device)
        with torch.no_grad():
            drawn = space.draw(same, draws)[0].cpu()
        mine = (components == component).numpy()
        offsets = (drawn - centres[torch.from_numpy(mine)][:1]).double().numpy()
        inside = clip_rows(offsets, item.radius, "l2")
        found[mine] = np.sqrt((offsets**2).mean(axis=0) / ((inside**2).mean(axis=0) / item.k + noise**2))
    return found
