"""How far patients are from each other when they are grouped: by their images, by an embedding, or not at all.

Each is the site's own or public. In the metric of what a coordinator sends, the coordinator could say who shares a
group; and in whitened codes, whose coordinates all have variance 1, all patients are about equally far, so that groups
of the nearest are hardly more alike than strangers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from sfumato_client.anonymise.contract import Job
from sfumato_client.anonymise.self_supervised import embedding_of
from sfumato_client.dataset import Cohort
from sfumato_common.generators.spectral.dct import dct_matrix
from sfumato_common.study.release import Grouped
from sfumato_common.types import AnyArray, to_unit_range

Float64 = npt.NDArray[np.float64]
Features = Callable[[AnyArray], Float64]
_BAND = 16  # frequencies a side of an image that are compared
_EMBEDDING_STEPS = 200  # one number for all items: patients are grouped once
_SEEN = 256  # images at once


def points_of(job: Job[Grouped]) -> Float64:
    """A point [P, F] for each patient, the mean over the patient's images: near ones may share a group."""
    match job.item.distance:
        case "image":
            return mean_of_patients(job.cohort, low_frequencies)
        case "embedding":
            net = embedding_of(job, _EMBEDDING_STEPS)

            def embedded(images: AnyArray) -> Float64:
                with torch.no_grad():
                    found = functional.normalize(net(torch.from_numpy(to_unit_range(images))), dim=1)
                return found.double().numpy()

            return mean_of_patients(job.cohort, embedded)
        case "random":
            return job.streams.secret.permutation(job.cohort.patients)[:, None].astype(np.float64)


def low_frequencies(images: AnyArray) -> Float64:
    """The coarsest 16 x 16 DCT coefficients of each channel [N, F], at their natural scale: blurred pixels."""
    pixels = to_unit_range(images).astype(np.float64)
    low = dct_matrix(pixels.shape[2])[:_BAND]
    return np.asarray((low @ pixels @ low.T).reshape(len(pixels), -1))


def mean_of_patients(cohort: Cohort, features: Features) -> Float64:
    """`features` [M, F] of a cohort's images, averaged over each patient's: [P, F]."""
    images, _, patient_index = cohort.everything()
    parts = [features(images[start : start + _SEEN]) for start in range(0, len(images), _SEEN)]
    found = np.concatenate(parts)
    sums = np.zeros((cohort.patients, found.shape[1]))
    np.add.at(sums, patient_index, found)
    return np.asarray(sums / np.bincount(patient_index, minlength=cohort.patients)[:, None])
